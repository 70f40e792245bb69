"""`python -m tpu_retinamask.train`: see `programs.train`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("tpu_retinamask.programs.train", run_name="__main__")
