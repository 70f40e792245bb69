"""What an error and a line of progress show: printable, and of a length that one reads."""

import io
import logging

from tpu_retinamask.errors import LONGEST_LINE, printable, read_as
from tpu_retinamask.signs_of_life import TerminalHandler


def test_control_characters_are_escaped_and_letters_of_all_scripts_stay():
    assert printable("a\x1b[31m\x07\r\x00\x7f\x9b\x85b") == r"a\x1b[31m\x07\r\x00\x7f\x9b\x85b"
    assert printable("\u202egnp.exe \u2028 \udcff") == r"\u202egnp.exe \u2028 \udcff"  # turned about; no text at all
    kept = "line\n\tnext: \u00e4\u00df \u7d30\u80de \u0395 \u3000 \u00a0 \U0001f9ec \u00b2 \\ '"
    assert printable(kept) == kept


def test_lines_are_cut_each_for_itself():
    text = printable("x" * 50_000_000 + "\nshort\n" + "y" * LONGEST_LINE)
    first, second, third = text.split("\n")
    assert first == "x" * LONGEST_LINE + "... (50,000,000 characters)"
    assert second == "short" and third == "y" * LONGEST_LINE


def test_what_was_read_is_quoted_and_cut():
    assert read_as("a\x1b'b") == repr("a\x1b'b")
    assert read_as("z" * 1000) == f"'{'z' * 200}'... (1,000 characters)"


def test_lines_of_the_log_are_printable():
    stream = io.StringIO()
    handler = TerminalHandler(stream)
    handler.emit(logging.LogRecord("x", logging.WARNING, "", 0, "%s is %s", ("a\x1b]0;b\x07", "c" * 10_000), None))
    assert "\x1b" not in stream.getvalue() and r"a\x1b]0;b\x07 is ccc" in stream.getvalue()
    assert len(stream.getvalue()) < LONGEST_LINE + 100
