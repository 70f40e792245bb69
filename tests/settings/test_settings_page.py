"""The page of all settings: as the code has them."""

import importlib
import importlib.util
import pathlib

from tpu_retinamask import config

for _program in config.PROGRAMS:  # now: gin knows no new names once a test has read a configuration
    importlib.import_module(f"tpu_retinamask.programs.{_program}")
ROOT = pathlib.Path(__file__).resolve().parents[2]


def _writer():
    spec = importlib.util.spec_from_file_location("write_settings_page", ROOT / "tools" / "write_settings_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_section_is_read_with_its_lines_joined():
    text = """One line.

    Attributes:
      first: of two
        lines.
      second: alone.

    Raises:
      Error: not this.
    """
    assert _writer().described(text, "Attributes") == {"first": "of two lines.", "second": "alone."}


def test_the_page_is_what_the_code_says():
    assert (ROOT / "docs" / "settings.md").read_text() == _writer().page(), "run python tools/write_settings_page.py"
