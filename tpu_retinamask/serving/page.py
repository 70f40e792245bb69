"""The page on which a picture is dropped: one file, which asks this server alone and no other."""

import base64
import functools
import hashlib
import importlib.resources
import re


@functools.cache
def page() -> tuple[bytes, dict[str, str]]:
    """Return the page and its headers, by which a browser runs its script and style and nothing else."""
    text = importlib.resources.files("tpu_retinamask.serving").joinpath("page.html").read_text("utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    policy = {
        "default-src": "'none'",
        "script-src": _digest(script),
        "style-src": _digest(style),
        "img-src": "blob: data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return text.encode(), {"Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items())}


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
