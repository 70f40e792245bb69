"""The processor that machine code is for."""

import pathlib
import platform


def this_cpu() -> str:
    """Return what machine code this CPU takes: a program kept on another is not for it."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
