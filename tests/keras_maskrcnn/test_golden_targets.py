"""Anchor targets equal those of keras-maskrcnn, in its own form and as the training step makes them."""

import numpy as np
import pytest
import tensorflow as tf
from golden import golden_set
from reference import box_reference

from tpu_retinamask.keras_maskrcnn.targets import anchor_targets
from tpu_retinamask.model.losses import Criterion
from tpu_retinamask.ops.anchors import AnchorGrid
from tpu_retinamask.ops.boxes import CornerBoxCoder
from tpu_retinamask.structures import BACKGROUND, IGNORED, AnchorFrame, Batch

_INFO = golden_set.values("csv_generator/info")
_SETS = golden_set.present(
    [name for name in _INFO if isinstance(_INFO[name], dict) and "anno" in _INFO[name]], "csv_generator/{}.npz"
)
_OLD_SETS = golden_set.present(_SETS, "csv_generator/{}_targets_plus1_iou.npz")
# One offset of up to 34 comes from float32 boxes of some hundred pixels: a few units in the last place.
_OFFSET_TOLERANCE = dict(atol=1e-5, rtol=1e-6)


def _grid(name):
    if "config" not in _INFO[name]:
        return AnchorGrid()
    cases = golden_set.values("anchors")["cases"].values()
    anchors = next(case for case in cases if "ini_file" in case)  # what csv_generator/dataset/anchors.ini holds
    return AnchorGrid(**{key: anchors[key] for key in ("levels", "sizes", "strides", "ratios", "scales")})


class _Case:
    """One batch of the original's generator: boxes in, targets out."""

    def __init__(self, name, targets=None, margin=1e-12):
        self.arrays = golden_set.Arrays(f"csv_generator/{targets or name}")
        batch = golden_set.Arrays(f"csv_generator/{name}")
        if "anno2_boxes" not in batch:  # the set holds targets alone: same batch, other anchors
            same = [
                other
                for other in _SETS
                if other != name
                and "transform_generator" not in _INFO[other]
                and _INFO[other]["image_batch"] == _INFO[name]["image_batch"]
                and _INFO[other]["annotations"] == _INFO[name]["annotations"]
            ]
            batch = golden_set.Arrays(f"csv_generator/{same[0]}")
        images, height, width, _ = _INFO[name]["image_batch"]
        self.image_size = height, width
        self.boxes = batch["anno2_boxes"]  # [B, M, 4]
        has_area = (self.boxes[..., 2] > self.boxes[..., 0]) & (self.boxes[..., 3] > self.boxes[..., 1])
        self.classes = np.where(has_area, batch["anno2_label"], -1).astype(np.int32)
        own = "own_image_sizes_hw" in batch
        self.content = batch["own_image_sizes_hw"] if own else np.tile([height, width], (images, 1))
        self.levels = _grid(name).anchors_float64(self.image_size)
        self.anchors = np.concatenate(self.levels)
        self.state = self.arrays["anno1_state"].astype(np.float32)  # [B, N]
        shape = self.arrays["anno1_shape"]
        self.labels = np.zeros(shape[:2], np.int32) + BACKGROUND
        index, value = self.arrays["anno1_index"], self.arrays["anno1_value"]
        classes = index[:, 2] < shape[2] - 1
        assert np.all(value[classes] == 1)
        self.labels[index[classes, 0], index[classes, 1]] = index[classes, 2]
        self.undecided = self._undecided(name, margin)

    def _undecided(self, name, margin):
        """[B, N] bool: anchors centred on the border, and IoU within the margin of a threshold."""
        undecided = np.zeros(self.state.shape, bool)
        for b, rows in enumerate(_INFO[name]["anchors_centred_exactly_on_the_border_per_image"]):
            undecided[b, rows] = True
        for b, boxes in enumerate(self.boxes):
            for box in boxes[self.classes[b] >= 0]:
                low = np.maximum(self.anchors[:, :2], box[:2])
                high = np.minimum(self.anchors[:, 2:], box[2:])
                overlap = np.prod(np.maximum(high - low, 0), axis=1)
                areas = np.prod(self.anchors[:, 2:] - self.anchors[:, :2], axis=1)
                union = areas + np.prod(box[2:] - box[:2]) - overlap
                for threshold in (0.4, 0.5):
                    undecided[b] |= np.abs(overlap / union - threshold) < margin
        return undecided


@pytest.mark.parametrize("name", _SETS)
def test_targets_in_the_original_s_form(name):
    case = _Case(name)
    classes = _INFO["num_classes"]
    regression, classification = (
        part.numpy() for part in anchor_targets(case.anchors, case.boxes, case.classes, case.content, classes)
    )
    decided = ~case.undecided
    assert decided.mean() > 0.9
    assert list(regression.shape) == _INFO[name]["anno"][0] and classification.shape[:2] == case.state.shape
    np.testing.assert_array_equal(regression[..., 4][decided], case.state[decided])
    np.testing.assert_array_equal(classification[..., classes][decided], case.state[decided])
    expected = (case.labels[..., None] == np.arange(classes)).astype(np.float32)
    np.testing.assert_array_equal(classification[..., :classes][decided], expected[decided])
    value, offsets = case.arrays.part("anno0", regression)
    golden_set.assert_close(value[..., :4], offsets[..., :4], **_OFFSET_TOLERANCE)  # of negatives, too
    for state, key in ((1, "positives"), (-1, "ignored"), (0, "negatives")):
        counted = (case.state == state).sum(axis=1)
        np.testing.assert_array_equal(counted, _INFO[name][key])
        ours = ((regression[..., 4] == state) & decided).sum(axis=1)
        np.testing.assert_array_equal(ours, ((case.state == state) & decided).sum(axis=1))


@pytest.mark.parametrize("name", _SETS)
def test_no_anchor_that_is_not_positive_carries_a_class(name):
    # A fault that keras-maskrcnn has been reported with; this commit of it is right, and so are we.
    case = _Case(name)
    decided = ~case.undecided  # of an anchor centred on the border the original gives a class and ignores it
    assert np.all(((case.labels >= 0) == (case.state == 1))[decided])
    _, classification = anchor_targets(case.anchors, case.boxes, case.classes, case.content, _INFO["num_classes"])
    classification = classification.numpy()
    np.testing.assert_array_equal(classification[..., :-1].sum(-1)[decided], (classification[..., -1] == 1)[decided])


@pytest.mark.parametrize("name", _SETS)
def test_targets_of_the_training_step(name):
    # float32 anchors, on the device: the same states and labels, and offsets where they are used.
    case = _Case(name, margin=1e-5)  # float32 coordinates move an IoU by up to 5e-6
    boxes, classes = case.boxes, case.classes
    if boxes.shape[1] == 0:
        boxes, classes = np.zeros((len(boxes), 1, 4), np.float32), np.full((len(boxes), 1), -1, np.int32)
    nothing = [None] * (len(Batch._fields) - 3)
    batch = Batch(None, tf.constant(case.content, tf.int32), tf.constant(boxes), *nothing)._replace(
        classes=tf.constant(classes)
    )
    anchors = [level.astype(np.float32) for level in case.levels]
    targets = Criterion(best_match_iou=None).assign(AnchorFrame((0, 0), anchors, CornerBoxCoder()), batch)
    expected = np.where(case.state == -1, IGNORED, case.labels)
    decided = ~case.undecided
    np.testing.assert_array_equal(targets.labels.numpy()[decided], expected[decided])
    value, golden = case.arrays.part("anno0", tf.concat([targets.deltas, tf.constant(case.state)[..., None]], -1))
    decided, _ = case.arrays.part("anno0", np.repeat(decided[..., None], 5, axis=-1))
    positive = (golden[..., 4] == 1) & decided[..., 0]
    # Differences of coordinates of some hundred pixels, each rounded to 3e-5, over sides of 16 pixels and std 0.2.
    golden_set.assert_close(value[positive][:, :4], golden[positive][:, :4], atol=2e-5)


@pytest.mark.parametrize("name", _OLD_SETS)
def test_the_plus_one_sets_are_another_convention(name):
    # keras-retinanet before April 2020 measured boxes as x2 - x1 + 1. Ours are half-open, as its later versions.
    case, old = _Case(name), _Case(name, f"{name}_targets_plus1_iou")
    info = golden_set.values("csv_generator/info_plus1_iou")[name]
    regression, _ = anchor_targets(case.anchors, case.boxes, case.classes, case.content, _INFO["num_classes"])
    differing = regression.numpy()[..., 4] != old.state
    assert (case.state != old.state).sum() == info["states_differing_from_half_open_iou"]
    assert (differing & ~case.undecided).sum() == ((case.state != old.state) & ~case.undecided).sum()
    for b, n in zip(*np.nonzero(differing & ~case.undecided)):
        best = max(_iou(case.anchors[n], box, 0.0) for box in case.boxes[b][case.classes[b] >= 0])
        best_old = max(_iou(case.anchors[n], box, 1.0) for box in case.boxes[b][case.classes[b] >= 0])
        assert _state(best) == case.state[b, n] and _state(best_old) == old.state[b, n]


def _iou(a, b, plus):
    sides = [min(a[i + 2], b[i + 2]) - max(a[i], b[i]) + plus for i in (0, 1)]
    overlap = max(sides[0], 0) * max(sides[1], 0)
    area = [(box[2] - box[0] + plus) * (box[3] - box[1] + plus) for box in (a, b)]
    return overlap / (sum(area) - overlap)


def _state(iou):
    return 1 if iou >= 0.5 else -1 if iou > 0.4 else 0


def test_iou_of_the_reference_is_the_half_open_one():
    assert _iou([0, 0, 10, 10], [5, 0, 15, 10], 0.0) == box_reference.iou([0, 0, 10, 10], [5, 0, 15, 10])
