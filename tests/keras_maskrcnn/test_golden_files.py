"""The copy of the golden numbers holds what the tests need: nothing may be absent in silence."""

import numpy as np
from golden import golden_set


def test_every_kind_of_file_is_there():
    missing = [name for name in golden_set.FILES if not (golden_set.FOLDER / name).exists()]
    assert not missing


def test_the_copy_in_the_repository_is_small_and_complete():
    files = {str(path.relative_to(golden_set.COPY)) for path in golden_set.COPY.rglob("*") if path.is_file()}
    assert set(golden_set.FILES) <= files
    assert sum((golden_set.COPY / name).stat().st_size for name in files if "__pycache__" not in name) <= 2e6


def test_thinned_arrays_are_compared_with_the_elements_they_hold(tmp_path, monkeypatch):
    whole = np.arange(35.0).reshape(5, 7)
    np.savez(tmp_path / "some.npz", **{"a@2,3": whole[::2, ::3], "b": whole})
    monkeypatch.setattr(golden_set, "FOLDER", tmp_path)
    arrays = golden_set.Arrays("some")
    assert "a" in arrays and "b" in arrays and "c" not in arrays
    arrays.compare("a", whole)
    arrays.compare("b", whole)
    value, expected = arrays.part("a", whole + 1)
    np.testing.assert_array_equal(value, expected + 1)
