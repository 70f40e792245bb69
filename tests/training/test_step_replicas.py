"""Two replicas on an image each do what one device does on both."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.ci  # two programs are compiled, one of four replicas

SCRIPT = pathlib.Path(__file__).with_name("two_replicas.py")


# "batch" does all that "frozen" does, and sums its statistics over the replicas.
@pytest.fixture(scope="module", params=["batch", pytest.param("frozen", marks=pytest.mark.slow)])
def comparison(request):
    """One device against two replicas: what `two_replicas.py` printed."""
    command = [sys.executable, str(SCRIPT), request.param]
    # Replicas on one CPU that never meet again must not hold up all other tests.
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_the_replicas_report_the_metrics_of_the_whole_batch(comparison):
    assert len(comparison["whole"]) == 2
    for whole, shared in zip(comparison["whole"], comparison["shared"]):
        # Clipped to 0.5, once and by the norm of the whole batch: each replica's own share would be clipped too.
        assert whole["gradient_norm"] > 4 * 0.5
        # The sums are divided otherwise: float32 rounding through 30 layers, 1e-6 seen.
        assert shared == pytest.approx(whole, rel=2e-5)


def test_weights_slots_and_statistics_equal_those_of_one_device(comparison):
    names = list(comparison["differences"])
    assert len(names) > 150
    for kind in ("box mean", "box variance", "average "):
        assert [name for name in names if name.startswith(kind)]
    # Relative to each tensor's largest element; the reasons are those of test_step_xla.
    worst = max(comparison["differences"], key=comparison["differences"].get)
    assert comparison["differences"][worst] < 3e-4, worst


def test_the_replicas_find_what_one_device_finds(comparison):
    found = {name: [np.array(values) for values in pair] for name, pair in comparison["detections"].items()}
    assert found["boxes"][0].shape == (2, 8, 4) and found["masks"][0].shape[:2] == (2, 8)
    assert (found["classes"][0] >= 0).sum() > 8
    np.testing.assert_array_equal(*found["classes"])
    for name in ("boxes", "scores", "masks"):  # convolutions of one image and of two add up in another order
        np.testing.assert_allclose(*found[name], atol=1e-4, err_msg=name)


def test_beta_follows_the_boxes(comparison):
    first, last = comparison["whole"]
    assert first["box_beta"] != last["box_beta"]


def test_replicas_stay_identical_to_the_bit(comparison):
    assert {name for name, value in comparison["spread"].items() if value} == set()
