"""Pure tensor functions: static shapes, no variables, no I/O. Imported as `tpu_retinamask.ops`."""

if __name__ != "tpu_retinamask.ops":
    raise ImportError(
        f"this folder was imported as {__name__!r}, which would be a second copy of every module in it. "
        "Import `tpu_retinamask.ops` instead; from a checkout, run `pip install -e .` first."
    )
