"""`python -m tpu_retinamask.benchmark`: the program in `programs.benchmark`."""

import sys

from tpu_retinamask.cli import main

if __name__ == "__main__":
    sys.exit(main(["benchmark", *sys.argv[1:]]))
