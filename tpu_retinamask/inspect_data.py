"""`python -m tpu_retinamask.inspect_data`: the program in `programs.inspect_data`."""

import sys

from tpu_retinamask.cli import process

if __name__ == "__main__":
    sys.exit(process(["inspect_data", *sys.argv[1:]]))
