"""`python -m tpu_retinamask.train`: the program in `programs.train`."""

import sys

from tpu_retinamask.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
