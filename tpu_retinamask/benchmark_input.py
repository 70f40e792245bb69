"""`python -m tpu_retinamask.benchmark_input`: the program in `programs.benchmark_input`."""

import sys

from tpu_retinamask.cli import main

if __name__ == "__main__":
    sys.exit(main(["benchmark_input", *sys.argv[1:]]))
