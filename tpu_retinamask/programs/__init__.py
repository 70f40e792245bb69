"""The programs, one a module; `retinamask NAME` and `python -m tpu_retinamask.NAME` run them."""
