"""`python -m tpu_retinamask.benchmark`: the program in `programs.benchmark`."""

import sys

from tpu_retinamask.cli import process

if __name__ == "__main__":
    sys.exit(process(["benchmark", *sys.argv[1:]]))
