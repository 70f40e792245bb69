"""The page of a report: one file of HTML with its style, charts, pictures and figures inside.

No script runs in it and nothing is fetched, which its own policy forbids to the browser as well. What comes from the
user, names of files and classes, passes `charts.escaped`; every other function here and in `charts` takes plain text.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tpu_retinamask.errors import gin_param
from tpu_retinamask.reports.charts import escaped
from tpu_retinamask.version import __version__

REPORT_FILE = "report.html"
# The first bytes of every report of ours, by which one is known that may be replaced.
MARK = b"<!doctype html><!-- report of tpu_retinamask -->"
FIGURES = "figures"  # id of the element that holds the figures as JSON

_STYLE = """
:root{color-scheme:light}
body{font:15px/1.45 system-ui,sans-serif;color:#1c1f22;background:#f4f5f6;margin:0 auto;max-width:1180px;padding:0 20px}
h1{font-size:24px;margin:26px 0 4px}h2{font-size:18px;margin:0 0 6px}
section{background:#fff;border:1px solid #dfe2e5;border-radius:8px;padding:16px 20px;margin:16px 0;overflow-x:auto}
p{margin:4px 0 10px;max-width:78ch}nav a{margin-right:14px;color:#2f6fb0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:6px 0}
th,td{padding:3px 12px;text-align:right;border-bottom:1px solid #eceef0}th{color:#555;font-weight:600}
th:first-child,td:first-child{text-align:left;padding-left:0}
.row{display:flex;flex-wrap:wrap;gap:18px;align-items:flex-start}
figure{margin:0 0 12px}figcaption{font-size:13px;color:#444;max-width:460px;overflow-wrap:anywhere}
.wide figcaption{max-width:none}img{max-width:100%;height:auto;display:block;border-radius:4px;background:#181818}
.legend{font-size:12px;max-width:460px}.legend span{margin-right:12px;white-space:nowrap}
.legend i{display:inline-block;width:10px;height:10px;border-radius:2px;margin-right:4px}
pre{background:#f4f5f6;padding:10px;border-radius:6px;overflow-x:auto}
.tiles{display:flex;flex-wrap:wrap;gap:26px}.tiles b{display:block;font-size:22px}
footer{color:#666;font-size:13px;margin:20px 0 40px}
"""


class Section(NamedTuple):
    """A part of the page."""

    title: str
    markup: str  # made by the functions of this module and of `charts`


def page(title: str, subtitle: str, sections: Sequence[Section], figures: Mapping[str, Any]) -> str:
    """Return the text of a report.

    Args:
      title: what it is.
      subtitle: of what.
      sections: in their order.
      figures: what is shown, as JSON; nan becomes null.
    """
    links = "".join(f'<a href="#s{number}">{escaped(one.title)}</a>' for number, one in enumerate(sections))
    parts = "".join(
        f'<section id="s{number}"><h2>{escaped(one.title)}</h2>{one.markup}</section>'
        for number, one in enumerate(sections)
    )
    head = (
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        'style-src \'unsafe-inline\'"><link rel="icon" href="data:,">'
        f"<title>{escaped(title)}</title><style>{_STYLE}</style></head>"
    )
    return (
        f"{MARK.decode()}\n{head}\n<body><h1>{escaped(title)}</h1><p>{escaped(subtitle)}</p><nav>{links}</nav>\n"
        f"{parts}\n<footer>tpu_retinamask {escaped(__version__)}</footer>\n"
        f'<script type="application/json" id="{FIGURES}">{_json(figures)}</script>\n</body></html>\n'
    )


def paragraph(text: str) -> str:
    """Return a paragraph of plain text."""
    return f"<p>{escaped(text)}</p>"


def code(lines: Iterable[str]) -> str:
    """Return lines to copy."""
    return f"<pre>{escaped(chr(10).join(lines))}</pre>"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table, its first column to the left; floats have three decimals, nan is "-"."""
    head = "".join(f"<th>{escaped(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escaped(shown(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def tiles(values: Iterable[tuple[str, object]]) -> str:
    """Return a few numbers, large, with their names below."""
    parts = "".join(f"<div><b>{escaped(shown(value))}</b>{escaped(name)}</div>" for name, value in values)
    return f'<div class="tiles">{parts}</div>'


def row(figures: Iterable[str]) -> str:
    """Return figures side by side, as many as the window holds."""
    return f'<div class="row">{"".join(figures)}</div>'


def figure(markup: str, caption: str) -> str:
    """Return a chart with what it shows."""
    return f"<figure>{markup}<figcaption>{escaped(caption)}</figcaption></figure>"


def picture(uri: str, caption: str, *, width: int, wide: bool = False) -> str:
    """Return a picture with its caption.

    Args:
      uri: of `crops.data_uri`, which holds nothing to escape.
      caption: plain text.
      width: that it is shown in, in pixels.
      wide: a line of its own.
    """
    kind = ' class="wide"' if wide else ""
    return (
        f'<figure{kind}><img src="{uri}" width="{width}" alt="{escaped(caption)}" loading="lazy">'
        f"<figcaption>{escaped(caption)}</figcaption></figure>"
    )


def shown(value: object) -> str:
    """Return a number as the page has it."""
    if isinstance(value, float):
        return f"{value:.3f}" if math.isfinite(value) else "-"
    return str(value)


def more_of(setting: str, total: int, most: int) -> str:
    """Return what to say where not all are shown; nothing where all are."""
    return f" {most} of {total} are shown: {gin_param(f'report.{setting}', min(total, 1000))}" if total > most else ""


def _json(figures: Mapping[str, Any]) -> str:
    text = json.dumps(_plain(figures), allow_nan=False)
    # No tag begins inside: the text is read by a parser of HTML first.
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
