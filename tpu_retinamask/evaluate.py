"""`python -m tpu_retinamask.evaluate`: the program in `programs.evaluate`."""

import sys

from tpu_retinamask.cli import process

if __name__ == "__main__":
    sys.exit(process(["evaluate", *sys.argv[1:]]))
