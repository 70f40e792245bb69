"""`python -m tpu_retinamask.plan`: the program in `programs.plan`."""

import sys

from tpu_retinamask.cli import process

if __name__ == "__main__":
    sys.exit(process(["plan", *sys.argv[1:]]))
