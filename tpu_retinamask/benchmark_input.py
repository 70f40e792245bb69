"""`python -m tpu_retinamask.benchmark_input`: the program in `programs.benchmark_input`."""

import sys

from tpu_retinamask.cli import process

if __name__ == "__main__":
    sys.exit(process(["benchmark_input", *sys.argv[1:]]))
