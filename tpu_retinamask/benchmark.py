"""`python -m tpu_retinamask.benchmark`: see `programs.benchmark`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("tpu_retinamask.programs.benchmark", run_name="__main__")
