"""`python -m tpu_retinamask.data_service`: see `programs.data_service`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("tpu_retinamask.programs.data_service", run_name="__main__")
