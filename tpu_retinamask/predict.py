"""`python -m tpu_retinamask.predict`: the program in `programs.predict`."""

import sys

from tpu_retinamask.cli import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
