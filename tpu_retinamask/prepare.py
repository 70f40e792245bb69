"""`python -m tpu_retinamask.prepare`: the program in `programs.prepare`."""

import sys

from tpu_retinamask.cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", *sys.argv[1:]]))
