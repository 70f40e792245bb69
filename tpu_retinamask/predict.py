"""`python -m tpu_retinamask.predict`: the program in `programs.predict`."""

import sys

from tpu_retinamask.cli import process

if __name__ == "__main__":
    sys.exit(process(["predict", *sys.argv[1:]]))
