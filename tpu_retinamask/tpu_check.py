"""`python -m tpu_retinamask.tpu_check`: the program in `programs.tpu_check`."""

import sys

from tpu_retinamask.cli import process

if __name__ == "__main__":
    sys.exit(process(["tpu_check", *sys.argv[1:]]))
