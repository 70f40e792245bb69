"""`python -m tpu_retinamask.inspect_data`: see `programs.inspect_data`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("tpu_retinamask.programs.inspect_data", run_name="__main__")
