"""`python -m tpu_retinamask.tpu_check`: see `programs.tpu_check`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("tpu_retinamask.programs.tpu_check", run_name="__main__")
