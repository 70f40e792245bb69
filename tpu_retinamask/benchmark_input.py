"""`python -m tpu_retinamask.benchmark_input`: see `programs.benchmark_input`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("tpu_retinamask.programs.benchmark_input", run_name="__main__")
