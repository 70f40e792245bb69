"""`python -m tpu_retinamask.data_service`: the program in `programs.data_service`."""

import sys

from tpu_retinamask.cli import main

if __name__ == "__main__":
    sys.exit(main(["data_service", *sys.argv[1:]]))
