"""The audit names each forbidden operation with the line that made it, and passes the real step."""

import dataclasses
import inspect
import os
import re

import keras
import pytest
import tensorflow as tf

from tpu_retinamask.model.losses import Criterion
from tpu_retinamask.model.retinamask import RetinaMask
from tpu_retinamask.ops.select import select
from tpu_retinamask.programs.benchmark import fixed_batch
from tpu_retinamask.training.box_statistics import BoxStatistics
from tpu_retinamask.training.devices.placement import compile_step
from tpu_retinamask.training.optimizers import make_optimizer
from tpu_retinamask.training.step import make_train_step
from tpu_retinamask.xla import audit

BOX = tf.TensorSpec([4, 4], tf.float32)


def _boolean_mask(x):
    return tf.reduce_sum(tf.boolean_mask(x, x > 0))


def _where(x):
    return tf.reduce_sum(tf.cast(tf.where(x > 0), tf.float32))


def _unique(x):
    return tf.reduce_sum(tf.unique(x[:, 0])[0])


def _unique_with_counts(x):
    return tf.reduce_sum(tf.unique_with_counts(x[:, 0])[0])


def _crops(image, boxes):
    return tf.image.crop_and_resize(image, boxes, tf.zeros([4], tf.int32), [2, 2])


def _crop(x):
    return tf.reduce_sum(_crops(tf.ones([1, 8, 8, 1]), x))


def _crop_gradient_of_image(x):
    image = tf.ones([1, 8, 8, 1]) * x[0, 0]
    return tf.reduce_sum(tf.gradients(_crops(image, tf.stop_gradient(x)), image)[0])


def _crop_gradient_of_boxes(x):
    return tf.reduce_sum(tf.gradients(_crops(tf.ones([1, 8, 8, 1]), x), x)[0])


def _nearest_gradient(x):
    up = tf.compat.v1.image.resize_nearest_neighbor(x[None, :, :, None], [8, 8])
    return tf.reduce_sum(tf.gradients(up, x)[0])


def _combined_nms(x):
    found = tf.image.combined_non_max_suppression(x[None, :, None], x[None, :, :1], 4, 4)
    return tf.reduce_sum(found.nmsed_scores)


def _print(x):
    tf.print("loss", x)
    return tf.reduce_sum(x)


def _print_of_v1(x):
    return tf.reduce_sum(tf.raw_ops.Print(input=x, data=[x]))


def _assert(x):
    tf.debugging.Assert(tf.reduce_all(x > 0), [x])
    return tf.reduce_sum(x)


def _py_function(x):
    return tf.reduce_sum(tf.ensure_shape(tf.py_function(lambda y: y, [x], tf.float32), [4, 4]))


def _numpy_function(x):
    return tf.reduce_sum(tf.ensure_shape(tf.numpy_function(lambda y: y, [x], tf.float32), [4, 4]))


def _numpy_function_stateless(x):
    return tf.reduce_sum(tf.ensure_shape(tf.numpy_function(lambda y: y, [x], tf.float32, stateful=False), [4, 4]))


def _map_fn(x):
    return tf.reduce_sum(tf.map_fn(tf.sin, x))


def _cond_of_map_fn(x):
    y = tf.cond(x[0, 0] > 0, lambda: tf.reduce_sum(tf.map_fn(tf.sin, x)), lambda: 0.0)
    return tf.reduce_sum(tf.gradients(y, x)[0])


def _dynamic_range(x):
    return tf.reduce_sum(tf.range(tf.cast(x[0, 0], tf.int32)))


def _string_constant(x):
    return tf.reduce_sum(x) + tf.cast(tf.strings.to_hash_bucket_fast(tf.constant("name"), 7), tf.float32)


# The plant, the type of operation to be named, a word of the reason.
PLANTS = [
    (_where, "Where", "true elements"),
    (_boolean_mask, "Where", "true elements"),
    (_unique, "Unique", "different elements"),
    (_unique_with_counts, "UniqueWithCounts", "different elements"),
    (_crop, "CropAndResize", "roi_align"),
    (_crop_gradient_of_image, "CropAndResizeGradImage", "roi_align"),
    (_crop_gradient_of_boxes, "CropAndResizeGradBoxes", "roi_align"),
    (_nearest_gradient, "ResizeNearestNeighborGrad", "upsample_nearest"),
    (_combined_nms, "CombinedNonMaxSuppression", "ops.nms"),
    (_print, "PrintV2", "host"),
    (_print, "StringFormat", "host"),
    (_print_of_v1, "Print", "host"),
    (_assert, "Assert", "host"),
    (_py_function, "EagerPyFunc", "host"),
    (_numpy_function, "PyFunc", "host"),
    (_numpy_function_stateless, "PyFuncStateless", "host"),
    (_map_fn, "TensorListReserve", "variant"),
    (_map_fn, "TensorListStack", "variant"),
    (_cond_of_map_fn, "FakeParam", "branch"),
    (_dynamic_range, "Range", "dynamic shape (None,)"),
    (_string_constant, "Const", "DT_STRING"),
]


def _directly(plant):
    return plant


def _in_nested_function(plant):
    inner = tf.function(tf.function(plant, autograph=False), autograph=False)

    def call(x):
        return tf.cast(inner(x), tf.float32) * 2.0

    return call


def _in_while_body(plant):
    def loop(x):
        def body(i, total):
            return i + 1, total + tf.cast(plant(x), tf.float32)

        return tf.while_loop(lambda i, _: i < 3, body, (0, 0.0))[1]

    return loop


def _in_branch(plant):
    def branch(x):
        return tf.cond(x[0, 0] > 0.0, lambda: tf.cast(plant(x), tf.float32), lambda: 0.0)

    return branch


def _in_loop_of_branch_of_function(plant):
    return _in_while_body(_in_branch(_in_nested_function(plant)))


def _trace(function, *specs):
    # As the step is traced: inside an XLA context the gradient of a branch leaves FakeParam, outside an Optional.
    return tf.function(function, autograph=False, jit_compile=True).get_concrete_function(*(specs or (BOX,)))


def _lines_of(function):
    lines, first = inspect.getsourcelines(function)
    return range(first, first + len(lines))


@pytest.mark.parametrize("wrapper", [_directly, _in_loop_of_branch_of_function], ids=["directly", "deep"])
@pytest.mark.parametrize("plant, op_type, word", PLANTS, ids=[f"{p.__name__[1:]}-{t}" for p, t, _ in PLANTS])
def test_a_planted_op_is_named_with_its_reason_and_its_line(plant, op_type, word, wrapper):
    found = [f for f in audit.audit(_trace(wrapper(plant))) if f.op_type == op_type and word in f.reason]
    assert found, f"{op_type} was not found"
    file, line = found[0].source.split(", in ")[0].rsplit(":", 1)
    assert os.path.samefile(file, __file__)
    assert int(line) in {*_lines_of(plant), *_lines_of(_crops)}


@pytest.mark.parametrize(
    "wrapper, function",
    [
        (_in_nested_function, r"__inference_.*where_\d+"),
        (_in_while_body, "while_body_.*"),
        (_in_branch, "cond_true_.*"),
    ],
)
def test_the_function_that_holds_the_op_is_named(wrapper, function):
    found = [f for f in audit.audit(_trace(wrapper(_where))) if f.op_type == "Where"]
    assert found and all(re.fullmatch(function, f.function) for f in found)


def test_the_source_is_the_very_line():
    finding = audit.audit(_trace(_where))[0]
    line = _lines_of(_where)[1]
    assert finding.source == f"{__file__}:{line}, in _where: return tf.reduce_sum(tf.cast(tf.where(x > 0), tf.float32))"
    assert (finding.op_type, finding.op_name) == ("Where", "Where")


def test_the_line_is_found_under_autograph_too():
    def loop(x):
        total = tf.constant(0.0)
        while total < 3.0:
            total += tf.reduce_sum(tf.cast(tf.where(x > 0), tf.float32))
        return total

    finding = audit.audit(tf.function(loop).get_concrete_function(BOX))[0]
    assert finding.source.startswith(f"{__file__}:{_lines_of(loop)[3]}, in ")


def test_the_gradient_of_a_loop_is_read():
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            _, y = tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, y * tf.sin(y)), (0, x))
        return tape.gradient(y, x)

    found = audit.audit(_trace(gradient))
    assert {"EmptyTensorList", "TensorListPushBack", "TensorListPopBack"} <= {f.op_type for f in found}
    assert any("grad" in f.function for f in found if f.op_type == "TensorListPopBack")

    def stopped(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            _, y = tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, y * tf.sin(y)), (0, tf.stop_gradient(x)))
            y = tf.reduce_sum(tf.stop_gradient(y) * x)
        return tape.gradient(y, x)

    assert audit.audit(_trace(stopped)) == ()


def test_a_function_read_from_disk_is_searched(tmp_path):
    module = tf.Module()
    module.run = tf.function(_in_while_body(_in_nested_function(_where)), input_signature=[BOX], autograph=False)
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    assert "Where" in {finding.op_type for finding in audit.audit(loaded)}


def test_what_is_allowed_passes():
    weight = tf.Variable(tf.ones([4, 4]))

    def allowed(x):
        chosen = select(x > 0.0, x, 0.0)  # SelectV2
        _, settled = tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, y * 0.5), (0, chosen))
        weight.assign_add(settled)  # a captured variable is a resource, not a variant
        best, _ = tf.math.top_k(settled, 2)
        return tf.reduce_sum(best * weight[:, :2])

    traced = _trace(allowed)
    assert "SelectV2" in {op.type for op in traced.graph.get_operations()}
    assert traced.captured_inputs
    assert audit.audit(traced) == ()
    audit.check(traced)


def test_the_error_lists_twenty_and_counts_the_rest():
    def prints(x):
        for _ in range(13):
            tf.print(x)
        return x

    traced = _trace(prints)
    assert len(audit.audit(traced)) == 26  # a StringFormat and a PrintV2 each
    with pytest.raises(audit.ForbiddenOpError, match="26 operations of .*prints") as caught:
        audit.check(traced)
    message = str(caught.value)
    assert message.count("tf.print(x)") == 20
    assert message.endswith("and 6 more")


def test_what_causes_comes_before_what_suffers():
    def follow(x):
        rows = tf.strided_slice(x, [0, 0], tf.shape(tf.range(tf.cast(x[0, 0], tf.int32)))[:1] * [1, 1], [1, 1])
        return rows * 2.0 + tf.reduce_sum(tf.cast(tf.where(x > 0), tf.float32))

    kinds = [finding.op_type for finding in audit.audit(_trace(follow))]
    assert kinds[0] == "Where" and "StridedSlice" in kinds[1:]


def test_a_finding_cannot_be_changed():
    finding = audit.audit(_trace(_where))[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        finding.reason = ""


def test_the_list_is_readable():
    text = "\n".join(map(audit.format_finding, audit.audit(_trace(_in_while_body(_where)))))
    first, second = text.splitlines()[:2]
    assert first.startswith("Where 'while/Where' in while_body") and "true elements" in first
    assert second.startswith("    ") and "tf.where(x > 0)" in second


@pytest.mark.parametrize(
    "normalization, detections",
    [
        pytest.param("batch", 12, marks=pytest.mark.slow),
        ("frozen", 0),
        pytest.param("batch", 0, marks=pytest.mark.slow),
        pytest.param("frozen", 12, marks=pytest.mark.slow),
    ],
)
def test_the_training_step_is_clean(normalization, detections):
    keras.utils.set_random_seed(0)
    model = RetinaMask(
        3,
        backbone="small",
        normalization=normalization,
        fpn_channels=16,
        head_channels=16,
        head_depth=1,
        mask_channels=16,
        mask_depth=1,
    ).create_weights((64, 64))
    optimizer = make_optimizer(10, name="adamw", weight_decay=1e-4)
    optimizer.build(model.trainable_variables)
    criterion = Criterion(mask_rois=16, mask_rois_from_detections=detections)
    step = compile_step(make_train_step(model, criterion, optimizer, clip_norm=1.0, box_statistics=BoxStatistics()))
    traced = step.get_concrete_function(fixed_batch(2, (128, 128), 8, 3, mask_size=28))
    kinds = {op.type for op in traced.graph.get_operations()}
    assert {"Conv2DBackpropFilter", "ResourceApplyGradientDescent", "AssignSubVariableOp"} & kinds  # backward, update
    assert ("StatelessWhile" in kinds or "While" in kinds) == (detections > 0)  # the loop of the suppression
    audit.check(traced)


def test_a_forbidden_op_in_the_step_is_found(monkeypatch):
    from tpu_retinamask.training import step as step_module

    original = step_module.compute_losses

    def with_print(*args, **options):
        losses = original(*args, **options)
        total = losses.total
        tf.print(total)
        return losses

    monkeypatch.setattr(step_module, "compute_losses", with_print)
    model = RetinaMask(
        3, backbone="small", fpn_channels=16, head_channels=16, head_depth=1, mask_channels=16, mask_depth=1
    ).create_weights((64, 64))
    optimizer = make_optimizer(10)
    optimizer.build(model.trainable_variables)
    criterion = Criterion(mask_rois=16, mask_rois_from_detections=0)
    step = compile_step(make_train_step(model, criterion, optimizer, box_statistics=BoxStatistics()))
    with pytest.raises(audit.ForbiddenOpError, match="tf.print\\(total\\)"):
        audit.check(step.get_concrete_function(fixed_batch(2, (128, 128), 8, 3, mask_size=28)))
