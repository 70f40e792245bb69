"""`python -m tpu_retinamask.predict`: see `programs.predict`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("tpu_retinamask.programs.predict", run_name="__main__")
