"""`python -m tpu_retinamask.prepare`: the program in `programs.prepare`."""

import sys

from tpu_retinamask.cli import process

if __name__ == "__main__":
    sys.exit(process(["prepare", *sys.argv[1:]]))
