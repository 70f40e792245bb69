"""Charts as SVG text: lines, points, bars, columns and heat maps. What they are told is escaped here."""

import html
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tpu_retinamask.errors import printable

WIDTH, HEIGHT = 460, 320  # pixels of a chart with axes
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 12, 46  # around the plot
_LONGEST = 26  # characters of a label; the whole text is shown where the pointer rests
BLUE, RED, GRAY = "#2f6fb0", "#c8402f", "#888888"
COLOURS = (
    BLUE, "#d9822b", "#3b8f4e", RED, "#7d5ba6", "#8a5a44", "#d070a8", "#5f6b75", "#9a9a22", "#20a0a8", "#1f3d66",
    "#e0a96d",
)  # fmt: skip


class Axis(NamedTuple):
    """What an axis shows, and from where to where."""

    label: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False  # each step doubles; low and high are above 0

    def place(self, value: float) -> float:
        """Return where a value lies, 0 at `low` and 1 at `high`; what lies beyond is held at the end."""
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log2(low), math.log2(high), math.log2(max(value, self.low))
        return min(max((at - low) / (high - low), 0.0), 1.0) if high > low else 0.5

    def ticks(self) -> list[float]:
        """Return up to seven values to write beside the axis."""
        if self.log:
            first, last = math.ceil(math.log2(self.low) - 1e-9), math.floor(math.log2(self.high) + 1e-9)
            return [2.0**power for power in range(first, last + 1, -(-(last - first + 1) // 7) or 1)]
        if not self.high > self.low:
            return [self.low]
        rough = (self.high - self.low) / 6
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


class Series(NamedTuple):
    """Points of one kind."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str = BLUE


def escaped(text: object) -> str:
    """Return text as HTML and SVG show it, whatever is in it; control characters are written out."""
    return html.escape(printable(str(text)), quote=True)


def lines(series: Sequence[Series], x: Axis, y: Axis, *, diagonal: bool = False) -> str:
    """Return curves in one frame, with a legend where there are several.

    Args:
      series: points in the order of their x; of one that is not finite nothing is drawn.
      x: across.
      y: upwards.
      diagonal: draw the line where both are equal, dashed.
    """
    parts = [_frame(x, y)]
    if diagonal:
        parts.append(_path([(x.low, y.low), (x.high, y.high)], x, y, GRAY, ' stroke-dasharray="4 4"'))
    for one in series:
        title = f"<title>{escaped(one.name)}</title>"
        parts.append(f"<g>{title}{_path(_finite(one.points), x, y, one.colour)}</g>")
    return _svg(WIDTH, HEIGHT, y.label, parts) + _legend(series)


def points(series: Sequence[Series], x: Axis, y: Axis, *, size: float = 4) -> str:
    """Return dots in one frame, the last series on top, with a legend; see `lines`."""
    parts = [_frame(x, y)]
    for one in series:
        dots = "".join(f"M{_x(at, x):.1f} {_y(up, y):.1f}h0" for at, up in _finite(one.points))
        parts.append(
            f'<path d="{dots}" stroke="{one.colour}" stroke-width="{size:g}" stroke-linecap="round" '
            'stroke-opacity="0.6" fill="none"/>'
        )
    return _svg(WIDTH, HEIGHT, f"{y.label}, {x.label}", parts) + _legend(series)


def columns(
    edges: Sequence[float], heights: Sequence[float], x: Axis, y: Axis, *, diagonal: bool = False, colour: str = BLUE
) -> str:
    """Return a column between each two edges.

    Args:
      edges: [n + 1], rising.
      heights: [n]; nan: no column.
      x: across.
      y: upwards.
      diagonal: as of `lines`.
      colour: of the columns.
    """
    parts = [_frame(x, y)]
    for left, right, height in zip(edges, edges[1:], heights):
        if not math.isfinite(height):
            continue
        start, end, top = _x(left, x), _x(right, x), _y(height, y)
        parts.append(
            f'<rect x="{start + 0.5:.1f}" y="{top:.1f}" width="{max(end - start - 1, 0.5):.1f}" '
            f'height="{_y(y.low, y) - top:.1f}" fill="{colour}"><title>{left:.3g} to {right:.3g}: {height:.4g}</title>'
            "</rect>"
        )
    if diagonal:
        parts.append(_path([(x.low, y.low), (x.high, y.high)], x, y, GRAY, ' stroke-dasharray="4 4"'))
    return _svg(WIDTH, HEIGHT, f"{y.label}, {x.label}", parts)


def bars(rows: Iterable[tuple[str, float]], *, form: str = "{:g}", most: float | None = None, label: str = "") -> str:
    """Return a bar a row, its name to the left and its value behind it.

    Args:
      rows: names and values from 0; nan is written as "-".
      form: of the values.
      most: value of a bar of full length; None: the largest.
      label: what is shown.
    """
    rows = list(rows)
    largest = max([value for _, value in rows if math.isfinite(value)], default=0.0)
    most = most or largest or 1.0
    left, line, full = 190, 20, 220
    parts = []
    for row, (name, value) in enumerate(rows):
        middle, known = row * line + line / 2, math.isfinite(value)
        length = full * min(max(value, 0.0) / most, 1.0) if known else 0.0
        parts.append(_text(left - 6, middle, name, "end"))
        parts.append(
            f'<rect x="{left}" y="{row * line + 3}" width="{length:.1f}" height="{line - 6}" fill="{BLUE}"/>'
            + _text(left + length + 5, middle, form.format(value) if known else "-", "start")
        )
    return _svg(left + full + 70, max(len(rows), 1) * line, label, parts)


def heat_map(
    rows: Sequence[str], across: Sequence[str], values: Sequence[Sequence[float]], *, labels: tuple[str, str]
) -> str:
    """Return a table of numbers as colours, each row by its own sum; numbers are written where there is room.

    Args:
      rows: names, downwards.
      across: names, to the right.
      values: [len(rows)][len(across)], counts.
      labels: what the rows are, and what the columns are.
    """
    cell = max(12, min(44, 620 // max(len(across), 1)))
    left, top = 180, 150
    parts = [
        _text(6, top - 10, labels[0], "start", bold=True),
        _text(left, 10, labels[1], "start", bold=True),
    ]
    for column, name in enumerate(across):
        at = left + column * cell + cell / 2
        parts.append(f'<g transform="rotate(-60 {at:.1f} {top - 6})">{_text(at, top - 6, name, "start")}</g>')
    for row, name in enumerate(rows):
        middle, total = top + row * cell + cell / 2, sum(values[row]) or 1.0
        parts.append(_text(left - 6, middle, name, "end"))
        for column, value in enumerate(values[row]):
            if not value and len(across) > 12:
                continue
            share, at = value / total, left + column * cell
            parts.append(
                f'<rect x="{at}" y="{top + row * cell}" width="{cell - 1}" height="{cell - 1}" fill="{_shade(share)}">'
                f"<title>{escaped(name)}, {escaped(across[column])}: {value:g}</title></rect>"
            )
            if cell >= 26 and value:
                ink = "#fff" if share > 0.5 else "#111"
                parts.append(_text(at + cell / 2, middle, f"{value:g}", "middle", ink=ink))
    return _svg(left + len(across) * cell + 110, top + len(rows) * cell + 4, " and ".join(labels), parts)


def _frame(x: Axis, y: Axis) -> str:
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    parts = [f'<rect x="{_LEFT}" y="{_TOP}" width="{right - _LEFT}" height="{bottom - _TOP}" fill="#fff"/>']
    for value in x.ticks():
        at = _x(value, x)
        parts.append(f'<path d="M{at:.1f} {_TOP}V{bottom}" stroke="#e4e4e4"/>')
        parts.append(_text(at, bottom + 12, f"{value:.4g}", "middle"))
    for value in y.ticks():
        at = _y(value, y)
        parts.append(f'<path d="M{_LEFT} {at:.1f}H{right}" stroke="#e4e4e4"/>')
        parts.append(_text(_LEFT - 6, at, f"{value:.4g}", "end"))
    parts.append(f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" stroke="#444" fill="none"/>')
    parts.append(_text((_LEFT + right) / 2, HEIGHT - 10, x.label, "middle"))
    middle = (_TOP + bottom) / 2
    parts.append(f'<g transform="rotate(-90 12 {middle})">{_text(12, middle, y.label, "middle")}</g>')
    return "".join(parts)


def _legend(series: Sequence[Series]) -> str:
    if len(series) < 2:
        return ""
    entries = "".join(
        f'<span><i style="background:{one.colour}"></i>{escaped(_cut(one.name))}</span>' for one in series
    )
    return f'<p class="legend">{entries}</p>'


def _path(found: Sequence[tuple[float, float]], x: Axis, y: Axis, colour: str, more: str = "") -> str:
    drawn = "L".join(f"{_x(at, x):.1f} {_y(up, y):.1f}" for at, up in found)
    return f'<path d="M{drawn}" stroke="{colour}" stroke-width="1.8" fill="none"{more}/>' if found else ""


def _finite(found: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [point for point in found if all(map(math.isfinite, point))]


def _x(value: float, axis: Axis) -> float:
    return _LEFT + axis.place(value) * (WIDTH - _LEFT - _RIGHT)


def _y(value: float, axis: Axis) -> float:
    return HEIGHT - _BOTTOM - axis.place(value) * (HEIGHT - _TOP - _BOTTOM)


def _text(x: float, y: float, text: str, anchor: str, *, bold: bool = False, ink: str = "#222") -> str:
    weight = ' font-weight="bold"' if bold else ""
    title = f"<title>{escaped(text)}</title>" if len(text) > _LONGEST else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" dominant-baseline="central" fill="{ink}"{weight}>'
        f"{title}{escaped(_cut(text))}</text>"
    )


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _shade(share: float) -> str:
    red, green, blue = (round(255 + (end - 255) * min(share, 1.0)) for end in (31, 92, 153))
    return f"#{red:02x}{green:02x}{blue:02x}"


def _svg(width: float, height: float, label: str, parts: Iterable[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escaped(label)}" font-size="11">'
        f"{''.join(parts)}</svg>"
    )
