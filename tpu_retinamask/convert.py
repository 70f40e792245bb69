"""`python -m tpu_retinamask.convert`: the program in `programs.convert`."""

import sys

from tpu_retinamask.cli import main

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))
