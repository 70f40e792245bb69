"""`python -m tpu_retinamask.export`: the program in `programs.export`."""

import sys

from tpu_retinamask.cli import process

if __name__ == "__main__":
    sys.exit(process(["export", *sys.argv[1:]]))
