"""Charts: where values lie, and that nothing of a name becomes markup."""

import math
import re
import xml.etree.ElementTree

import pytest

from tpu_retinamask.reports import charts

EVIL = '<script>alert("x")</script>&\x1b[31m\u202e'


def _shapes(text):
    """Return the elements of an SVG that is well-formed, by their names."""
    svg = re.search(r"<svg.*?</svg>", text, re.DOTALL)[0]
    return list(xml.etree.ElementTree.fromstring(svg).iter())


@pytest.mark.parametrize(
    "axis, ticks",
    [
        (charts.Axis("x"), [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (charts.Axis("x", 0, 7), [0, 2, 4, 6]),
        (charts.Axis("x", 3, 3), [3]),
        (charts.Axis("x", 5, 70, log=True), [8, 16, 32, 64]),
        (charts.Axis("x", 1, 1024, log=True), [1, 4, 16, 64, 256, 1024]),
    ],
)
def test_ticks_are_round_and_few(axis, ticks):
    assert axis.ticks() == pytest.approx(ticks)


def test_places():
    assert charts.Axis("x", 0, 4).place(1) == 0.25
    assert charts.Axis("x", 4, 16, log=True).place(8) == pytest.approx(0.5)
    assert (charts.Axis("x").place(7), charts.Axis("x").place(-7)) == (1, 0)


def test_bars_are_as_long_as_their_values():
    drawn = _shapes(charts.bars([("a", 2.0), ("b", 1.0), ("c", math.nan)]))
    widths = [float(one.get("width")) for one in drawn if one.tag.endswith("rect")]
    assert widths == [220, 110, 0]
    assert [one.text for one in drawn if one.tag.endswith("text")] == ["a", "2", "b", "1", "c", "-"]


def test_columns_and_curves_leave_out_what_is_no_number():
    heights = [0.5, math.nan]
    shapes = _shapes(charts.columns([0, 0.5, 1], heights, charts.Axis("x"), charts.Axis("y"), colour="#abcdef"))
    (bar,) = [one for one in shapes if one.get("fill") == "#abcdef"]
    plot = charts.HEIGHT - 12 - 46
    assert float(bar.get("height")) == pytest.approx(plot / 2, abs=0.1)
    curve = charts.lines([charts.Series("s", [(0, 0), (0.5, math.nan), (1, 1)])], charts.Axis("x"), charts.Axis("y"))
    (path,) = [one.get("d") for one in _shapes(curve) if one.get("stroke") == charts.BLUE]
    assert path.count("L") == 1


def test_a_heat_map_shades_by_the_row():
    shapes = _shapes(charts.heat_map(["a", "b"], ["a", "none"], [[3, 1], [0, 0]], labels=("object", "seen as")))
    assert [one.get("fill") for one in shapes if one.tag.endswith("rect")][2:] == ["#ffffff", "#ffffff"]
    told = [one.text for one in shapes if one.tag.endswith("title")]
    assert told == ["a, a: 3", "a, none: 1", "b, a: 0", "b, none: 0"]


@pytest.mark.parametrize(
    "draw",
    [
        lambda name: charts.bars([(name, 1.0)], label=name),
        lambda name: charts.heat_map([name], [name], [[1]], labels=(name, name)),
        lambda name: charts.lines(
            [charts.Series(name, [(0, 1)]), charts.Series("b", [])], charts.Axis(name), charts.Axis(name)
        ),
        lambda name: charts.points([charts.Series(name, [(0, 1)])] * 2, charts.Axis(name), charts.Axis(name)),
        lambda name: charts.columns([0, 1], [1], charts.Axis(name), charts.Axis(name)),
    ],
)
def test_names_are_text_and_never_markup(draw):
    drawn = draw(EVIL)
    assert "<script" not in drawn and "\x1b" not in drawn and "\u202e" not in drawn
    texts = [one.text or "" for one in _shapes(drawn) if one.tag.endswith(("text", "title"))]
    assert any(text.startswith('<script>alert("x")') for text in texts)
