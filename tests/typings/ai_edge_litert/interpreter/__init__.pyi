"""Nothing is said of what this library gives: it ships no types, or wrong ones."""

from typing import Any

def __getattr__(name: str) -> Any: ...
