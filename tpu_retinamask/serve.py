"""`python -m tpu_retinamask.serve`: the program in `programs.serve`."""

import sys

from tpu_retinamask.cli import process

if __name__ == "__main__":
    sys.exit(process(["serve", *sys.argv[1:]]))
