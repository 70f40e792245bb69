"""The largest batch that fits, from a compiler whose memory grows by the image."""

import pathlib
import types

import pytest

from tpu_retinamask.programs import tpu_check
from tpu_retinamask.recipe import Recipe
from tpu_retinamask.training.settings import TrainSettings

GIB = 2**30


@pytest.fixture
def compiles(monkeypatch):
    """Replace the compiler by one that needs fixed + batch * image bytes; return the batches that it was asked for."""
    asked = []

    def install(fixed, image, surprise=0.0):
        def check_topology(programs, topology, batch, cache_dir):
            del programs, topology, cache_dir
            asked.append(batch)
            peak = fixed + batch * image + (surprise if batch > 20 else 0.0)
            return {
                "compiled": "yes",
                "batch_per_core": batch,
                "peak_bytes": peak,
                "hbm_bytes": 16 * GIB,
                "fits": peak <= tpu_check.USABLE * 16 * GIB,
            }

        monkeypatch.setattr(tpu_check, "check_topology", check_topology)
        return check_topology

    return types.SimpleNamespace(install=install, asked=asked)


def largest(check, batch, accumulate_steps=1):
    programs = types.SimpleNamespace(recipe=Recipe(train=TrainSettings(accumulate_steps=accumulate_steps)))
    row = check(programs, "v5e", batch, None)
    return tpu_check.largest_batch(programs, "v5e", row, pathlib.Path())


def test_a_line_through_two_compiles_and_a_third_confirms(compiles):
    found = largest(compiles.install(GIB, GIB / 4), 8)
    # 0.97 * 16 = 15.52 = 1 + 58.08 / 4
    assert found["largest_batch"] == 58 and found["largest_batch_confirmed"]
    assert found["bytes_per_image"] == GIB / 4 and found["fixed_bytes"] == GIB
    assert compiles.asked == [8, 16, 58]


def test_what_does_not_fit_after_all_is_not_confirmed(compiles):
    found = largest(compiles.install(GIB, GIB / 4, surprise=GIB), 8)
    assert found["largest_batch"] == 58 and not found["largest_batch_confirmed"]


def test_a_batch_that_nearly_fills_the_chip_is_compared_with_its_half(compiles):
    found = largest(compiles.install(GIB, GIB), 14)
    assert found["largest_batch"] == 14 and found["largest_batch_confirmed"]
    assert compiles.asked == [14, 7]


def test_batches_divide_into_the_parts_of_an_accumulated_step(compiles):
    found = largest(compiles.install(GIB, GIB / 4), 8, 4)
    assert found["largest_batch"] == 56 and found["largest_batch_confirmed"]  # not 58
    assert compiles.asked == [8, 16, 56]
    assert (
        largest(compiles.install(GIB, GIB), 12, 4)["largest_batch"] == 12
    )  # 14 would fit; 12 // 2 is no multiple of 4
    assert compiles.asked[3:] == [12, 4]
