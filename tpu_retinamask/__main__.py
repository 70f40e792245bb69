"""`python -m tpu_retinamask NAME ...`: see `cli`."""

import sys

from tpu_retinamask.cli import main

if __name__ == "__main__":
    sys.exit(main())
