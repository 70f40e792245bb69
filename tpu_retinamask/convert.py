"""`python -m tpu_retinamask.convert`: the program in `programs.convert`."""

import sys

from tpu_retinamask.cli import process

if __name__ == "__main__":
    sys.exit(process(["convert", *sys.argv[1:]]))
