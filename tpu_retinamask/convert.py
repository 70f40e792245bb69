"""`python -m tpu_retinamask.convert`: see `programs.convert`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("tpu_retinamask.programs.convert", run_name="__main__")
