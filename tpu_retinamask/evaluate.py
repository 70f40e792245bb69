"""`python -m tpu_retinamask.evaluate`: the program in `programs.evaluate`."""

import sys

from tpu_retinamask.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
