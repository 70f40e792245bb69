"""`python -m tpu_retinamask.data_service`: the program in `programs.data_service`."""

import sys

from tpu_retinamask.cli import process

if __name__ == "__main__":
    sys.exit(process(["data_service", *sys.argv[1:]]))
