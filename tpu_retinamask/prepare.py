"""`python -m tpu_retinamask.prepare`: see `programs.prepare`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("tpu_retinamask.programs.prepare", run_name="__main__")
