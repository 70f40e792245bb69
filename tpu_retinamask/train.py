"""`python -m tpu_retinamask.train`: the program in `programs.train`."""

import sys

from tpu_retinamask.cli import process

if __name__ == "__main__":
    sys.exit(process(["train", *sys.argv[1:]]))
