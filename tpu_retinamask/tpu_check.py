"""`python -m tpu_retinamask.tpu_check`: the program in `programs.tpu_check`."""

import sys

from tpu_retinamask.cli import main

if __name__ == "__main__":
    sys.exit(main(["tpu_check", *sys.argv[1:]]))
