"""`python -m tpu_retinamask.evaluate`: see `programs.evaluate`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("tpu_retinamask.programs.evaluate", run_name="__main__")
