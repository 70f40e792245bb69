"""gin/recipe/keras_maskrcnn.gin: the choices of the original, its size, and a step that compiles."""

import pytest
import tensorflow as tf
from golden import golden_set

from tpu_retinamask import config
from tpu_retinamask.model.losses import Criterion
from tpu_retinamask.model.postprocess import DetectionFilter
from tpu_retinamask.model.retinamask import RetinaMask
from tpu_retinamask.ops.boxes import CenterBoxCoder, CornerBoxCoder
from tpu_retinamask.structures import Batch
from tpu_retinamask.training.step import make_train_step
from tpu_retinamask.xla import audit


def test_parameter_count(configure):
    model = configure(lambda: config.RetinaMask(80).create_weights((64, 64)))
    assert model.count_params() == 39_312_612 + 21_002 * 80


def test_parameters_of_the_golden_network(build_original, manifest):
    model = build_original("explicit").model
    trainable = sum(int(tf.size(variable.value)) for variable in model.trainable_variables)
    for version in ("010", "020"):
        info = golden_set.values(f"model/info_krn{version}")
        assert (model.count_params(), trainable) == (info["total_params"], info["trainable_params"])
    assert model.count_params() == 39_312_612 + 21_002 * manifest["num_classes"]


def test_choices(build_original, training_options):
    built = build_original("explicit")
    assert built.model.box_coder == CornerBoxCoder(mean=0.0, std=0.2)
    assert (
        built.model.pixel_mode == "caffe"
        and built.model.settings.stop_mask_gradient
        and built.model.settings.roi_levels == 5
    )
    assert built.model.fpn.p6_from == "c5" and built.model.mask_head.upsample == "nearest"
    expected = DetectionFilter(
        score_threshold=0.05, nms_iou=0.5, max_detections=100, class_specific=True, clip_margin=1.0
    )
    assert built.detection_filter == expected and built.criterion.proposal_filter == expected
    assert built.criterion == Criterion(
        best_match_iou=None,
        focal_adds_batch=False,
        box_loss="smooth_l1",
        smooth_l1_beta=1 / 9,
        mask_rois=100,
        mask_rois_from_detections=100,
        mask_rois_from_truth=False,
        proposal_filter=expected,
        mask_targets="crop_and_resize",
        mask_average="images",
        best_match_ties="nearest",  # of no matter without best matching
    )
    assert built.model.settings.padding == "same" and not built.model.settings.mask_padding
    optimizer, clip_norm = training_options
    info = golden_set.values("model/train_step")["adam"]
    assert (float(optimizer.learning_rate), clip_norm) == pytest.approx((info["lr"], info["clipnorm"]))


def test_the_default_for_training_is_still_the_paper_s():
    model, criterion = RetinaMask(1), Criterion()
    assert (
        isinstance(model.box_coder, CenterBoxCoder)
        and not model.settings.stop_mask_gradient
        and model.settings.roi_levels == 3
    )
    assert model.fpn.p6_from == "p5" and model.settings.roi_semantics == "aligned"
    assert criterion.best_match_iou == 0.0 and criterion.mask_rois_from_truth and criterion.focal_adds_batch
    assert criterion.box_loss == "self_adjusting" and criterion.smooth_l1_beta == 0.11
    assert model.mask_head.upsample == "deconv"
    assert criterion.mask_targets == "aligned" and criterion.proposal_filter is None


@pytest.mark.slow  # test_audit looks at our own step
def test_the_step_holds_no_forbidden_op(build_original, training_options):
    built, (optimizer, clip_norm) = build_original("explicit"), training_options
    optimizer.build(built.model.trainable_variables)
    step = tf.function(
        make_train_step(built.model, built.criterion, optimizer, clip_norm=clip_norm), jit_compile=True, autograph=False
    )
    size, rows, side = (96, 96), 3, 28
    spec = Batch(
        image=tf.TensorSpec([1, *size, 3], tf.uint8),
        content_size=tf.TensorSpec([1, 2], tf.int32),
        boxes=tf.TensorSpec([1, rows, 4]),
        classes=tf.TensorSpec([1, rows], tf.int32),
        masks=tf.TensorSpec([1, rows, side, side], tf.uint8),
        has_mask=tf.TensorSpec([1, rows], tf.bool),
        image_scale=tf.TensorSpec([1]),
        original_size=tf.TensorSpec([1, 2], tf.int32),
        image_id=tf.TensorSpec([1], tf.int64),
        dropped=tf.TensorSpec([1], tf.int32),
    )
    audit.check(step.get_concrete_function(spec))
