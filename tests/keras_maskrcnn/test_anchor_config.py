"""The `.ini` of anchors: the golden one, the defaults, and what is refused."""

import numpy as np
import pytest
from golden import golden_set

from tpu_retinamask.errors import UserError
from tpu_retinamask.keras_maskrcnn.anchor_config import read_anchor_config
from tpu_retinamask.ops.anchors import AnchorGrid

PARAMETERS = "[anchor_parameters]\nsizes = 16 32\nstrides = 8 16\nratios = 0.5 1\nscales = 1\n"


@pytest.fixture
def read(tmp_path):
    """A function from the text of an `.ini` file to its AnchorGrid."""

    def read_text(text):
        (tmp_path / "anchors.ini").write_text(text)
        return read_anchor_config(str(tmp_path / "anchors.ini"))

    return read_text


def test_the_golden_file_gives_the_golden_anchors():
    grid = read_anchor_config(str(golden_set.FOLDER / "csv_generator/dataset/anchors.ini"))
    arrays, cases = golden_set.Arrays("anchors"), golden_set.values("anchors")["cases"]
    names = golden_set.cases(arrays, [name for name in cases if name.startswith("custom_ini")], "_first")
    assert names
    for name in names:
        rows = np.concatenate(grid.anchors_float64(cases[name]["image_hw"]))
        assert len(rows) == cases[name]["count"]
        np.testing.assert_allclose(rows[:18], arrays[f"{name}_first"], atol=1e-9)
        np.testing.assert_allclose(rows[-18:], arrays[f"{name}_last"], atol=1e-9)


def test_without_sections_the_default_holds(read):
    assert read("") == AnchorGrid()


def test_levels_alone_take_their_own_sizes_and_strides(read):
    grid = read("[pyramid_levels]\nlevels = 4 5 6\n")
    assert (grid.levels, grid.sizes, grid.strides) == ((4, 5, 6), (64, 128, 256), (16, 32, 64))


def test_both_sections(read):
    assert read(PARAMETERS + "[pyramid_levels]\nlevels = 3 4\n") == AnchorGrid(
        (3, 4), (16, 32), (8, 16), (0.5, 1.0), (1.0,)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PARAMETERS, r"AnchorGrid.sizes has 2 entries but there are 5 pyramid levels"),
        (PARAMETERS.replace("ratios", "ratio"), r"\[anchor_parameters\] has the keys .*'ratio'.*expected .*'ratios'"),
        (PARAMETERS.replace("8 16", "8, 16"), r"strides is '8, 16', expected numbers with spaces"),
        (PARAMETERS.replace("8 16", ""), r"strides is '', expected numbers with spaces"),
        ("[anchors]\n", r"unknown section \['anchors'\], expected"),
        ("[pyramid_levels]\nlevels = 3 8\n", r"levels \(3, 8\) need sizes and strides"),
        ("sizes = 3\n", "not an .ini file"),
    ],
)
def test_refused(read, text, message):
    with pytest.raises(UserError, match=f"anchors.ini: .*{message}"):
        read(text)


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "anchors.ini").write_bytes(b"[pyramid_levels]\nlevels = \xff\n")
    with pytest.raises(UserError, match=r"anchors\.ini: not an \.ini file: not UTF-8 text, first at byte 26"):
        read_anchor_config(str(tmp_path / "anchors.ini"))
    with pytest.raises(UserError, match="is a folder, expected a file"):
        read_anchor_config(str(tmp_path))


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.ini: no such file"):
        read_anchor_config(str(tmp_path / "none.ini"))
