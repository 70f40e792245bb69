"""`python -m tpu_retinamask.inspect_data`: the program in `programs.inspect_data`."""

import sys

from tpu_retinamask.cli import main

if __name__ == "__main__":
    sys.exit(main(["inspect_data", *sys.argv[1:]]))
