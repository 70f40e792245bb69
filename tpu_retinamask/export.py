"""`python -m tpu_retinamask.export`: the program in `programs.export`."""

import sys

from tpu_retinamask.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
