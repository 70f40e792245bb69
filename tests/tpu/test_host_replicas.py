"""The program that a TPU core would run, run here: four replicas on host CPUs equal one device on the whole batch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.tpu

REPLICAS, SHARE, STEPS = 4, 2, 2
SETTINGS = (
    # Statistics of few, plain pictures nearly divide by zero: their rounding would drown that of the sums.
    "RetinaMask.normalization = 'frozen'",
    "InputPipeline.image_size = (128, 128)",
    "InputPipeline.max_instances = 8",
    "InputPipeline.mask_size = 28",
    # Ground truth alone as regions: with detections a rounding could swap two of nearly equal score.
    "Criterion.mask_rois_from_detections = 0",
    "Criterion.mask_rois = 8",
    "Criterion.box_loss = 'self_adjusting'",
    "make_optimizer.weight_decay = 1e-4",
    f"train.batch_size = {REPLICAS * SHARE}",
)


def global_batch(fixed_batch, seed):
    """Return a Batch of all replicas' images: discs on a plain ground, the last image without boxes.

    Not noise: its gradients nearly cancel, and what is left of them would hang on single activations near zero.
    """
    batch = fixed_batch(REPLICAS * SHARE, (128, 128), 8, 3, mask_size=28)
    random = np.random.default_rng(seed)
    classes = batch.classes.numpy()
    classes[-1] = -1
    image = np.full(batch.image.shape, 40.0) + random.uniform(0, 30, (REPLICAS * SHARE, 1, 1, 3))
    y, x = np.mgrid[:128, :128] + 0.5
    for picture, boxes, labels in zip(image, batch.boxes.numpy(), classes):
        for (x1, y1, x2, y2), label in zip(boxes, labels):
            if label >= 0:
                inside = ((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 < 1
                picture[inside] = 100 + 50 * np.eye(3)[label]
    grid = (np.arange(28) + 0.5) / 14 - 1
    disc = (grid**2 + grid[:, None] ** 2 < 1).astype(np.uint8)
    return batch._replace(image=image.astype(np.uint8), classes=classes, masks=np.broadcast_to(disc, batch.masks.shape))


@pytest.mark.parametrize(
    "options", [(), ("train.accumulate_steps = 2", "train.average_decay = 0.9")], ids=["plain", "parts_and_average"]
)
def test_four_replicas_of_the_lowered_step_equal_one_device(tmp_path, options):
    from tpu_retinamask import config
    from tpu_retinamask.programs import tpu_check
    from tpu_retinamask.programs.benchmark import fixed_batch

    config.parse_gin(["recipe/small.gin"], SETTINGS + options)
    four, one = tpu_check.Programs(REPLICAS, num_classes=3), tpu_check.Programs(1, num_classes=3)
    start = {name: _value(variable) for name, variable in named_variables(four).items()}
    batches = [global_batch(fixed_batch, seed) for seed in range(STEPS)]
    shared = run_lowered(four, SHARE, batches, start, tmp_path)
    whole = run_lowered(one, REPLICAS * SHARE, batches, start, tmp_path)

    moved = 0
    for name, (expected,) in whole.items():
        ours = shared[name]
        assert (ours == ours[:1]).all(), f"{name}: replicas differ"
        difference = np.linalg.norm((ours[0] - expected).astype(np.float64))
        # The same sums of float32 in another order. Where one decides a ReLU at zero or the largest of a pool's window,
        # another element's gradient is passed on: one of the stem's momenta was seen 4e-5 apart.
        assert difference <= 1e-4 * np.linalg.norm(expected.astype(np.float64)) + 1e-6, (name, difference)
        moved += not np.array_equal(expected, start[name])
    assert moved > 100  # of the weights and their momenta


def run_lowered(programs, batch_per_core, batches, start, folder):
    """Lower the step, run it on host devices and return what every replica's variables hold, by name."""
    from tpu_retinamask.xla import lower, purify

    traced = programs.step.get_concrete_function(programs.pipeline.batch_spec(batch_per_core))
    pure = purify.per_core_function(traced)
    paths = [str(folder / f"{programs.replicas}_{name}") for name in ("step.mlir", "values.npz", "results.npz")]
    Path(paths[0]).write_bytes(lower.lower_for_tpu(pure))
    name_of = {id(variable._packed_var.packed_handle): name for name, variable in named_variables(programs).items()}
    names = [name_of[id(handle)] for handle in pure.variables]
    assert sorted(names) == sorted(start)
    values = {f"state_{slot}": start[name] for slot, name in enumerate(names)}
    own_fields = len(pure.inputs) - len(batches[0])  # which replica one is, where there are several
    for number, batch in enumerate(batches):
        fields = [np.arange(programs.replicas, dtype=np.int32)] * own_fields
        fields += [np.reshape(field, (programs.replicas, batch_per_core, *field.shape[1:])) for field in batch]
        values |= {f"input_{number}_{i}": field for i, field in enumerate(fields)}
    np.savez(paths[1], **values)
    subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("host_replicas.py")),
            *paths,
            f"--replicas={programs.replicas}",
            f"--steps={len(batches)}",
            f"--inputs={len(pure.inputs)}",
        ],
        check=True,
    )
    results = np.load(paths[2])
    return {name: results[f"state_{slot}"] for slot, name in enumerate(names)}


def named_variables(programs):
    """Return all state of a training by names that do not depend on how many were made before in the process."""
    learner = programs.learner
    named = {variable.path: variable.value for variable in learner.model.variables}
    named |= {
        "optimizer/" + variable.path.split("/", 1)[-1]: variable.value for variable in learner.optimizer.variables
    }
    for part, variables in learner.extra_variables.items():
        named |= {f"{part}/{name}": variable for name, variable in variables.items()}
    return named


def _value(variable):
    """Return the value of a variable's first replica."""
    return variable.values[0].numpy()
