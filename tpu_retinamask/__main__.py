"""`python -m tpu_retinamask NAME ...`: see `cli`."""

import sys

from tpu_retinamask.cli import process

if __name__ == "__main__":
    sys.exit(process())
