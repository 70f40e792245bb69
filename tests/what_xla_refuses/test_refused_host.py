"""What was refused outside the compiler: Python in graphs, anchors, `training`, pixels, debugging."""

import warnings

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from what_xla_refuses.support import (
    CANVAS,
    CRITERION,
    MASK_SIDE,
    MUCH_FOUND,
    ROWS,
    SAME_NUMBER,
    SCENES,
    and_gradient,
    as_floats,
    compiled,
    finite,
    has_no_kernel,
    largest_gradient,
    op_types,
    refusal,
    refused_by_audit,
    run_compiled,
    scene,
    set_class_bias,
    small_model,
    uniform,
)

from tpu_retinamask.data.augment.augmentation import Augmentation
from tpu_retinamask.data.stream.pipeline import InputPipeline
from tpu_retinamask.model.backbones.registry import make_backbone
from tpu_retinamask.model.layers.normalization import NORMALIZATIONS
from tpu_retinamask.ops.anchors import AnchorGrid
from tpu_retinamask.ops.boxes import CornerBoxCoder
from tpu_retinamask.ops.images import normalize_images
from tpu_retinamask.pretrained.load import load_weights, model_layers
from tpu_retinamask.training.box_statistics import BoxStatistics
from tpu_retinamask.training.debug import debug_step
from tpu_retinamask.training.step import make_train_step
from tpu_retinamask.xla import audit

# -- PyFunc ----------------------------------------------------------------------------------------


def dataset_ops(dataset: tf.data.Dataset) -> set:
    return op_types(tf.compat.v1.GraphDef.FromString(dataset._as_serialized_graph().numpy()))


def pipeline(**options) -> InputPipeline:
    return InputPipeline(image_size=CANVAS, max_instances=ROWS, mask_size=MASK_SIDE, **options)


@pytest.mark.parametrize("call, op_type", [(tf.numpy_function, "PyFunc"), (tf.py_function, "EagerPyFunc")])
def test_python_in_a_graph_is_refused(call, op_type):
    """Row "PyFunc": "No registered 'PyFunc' OpKernel", a Python generator fed to a remote device."""

    def python(x):
        return call(lambda value: value, [x], tf.float32)

    assert has_no_kernel(op_type, refusal(python, tf.ones([2])))
    assert op_type in refused_by_audit(python, tf.ones([2]))
    number = tf.TensorSpec([], tf.int32)
    generator = tf.data.Dataset.from_generator(lambda: iter([1]), output_signature=number)
    mapped = tf.data.Dataset.range(2).map(lambda x: python(tf.cast(x, tf.float32)))
    assert "PyFunc" in dataset_ops(generator) and op_type in dataset_ops(mapped)


def test_the_input_pipeline_holds_no_python(crowd):
    """Row "PyFunc", ours: from file names to batches, native operations only."""
    everything = Augmentation(
        horizontal_flip=0.5, vertical_flip=0.5, rot90=0.5, scale_jitter=(0.5, 2.0), brightness=0.1, contrast=0.1
    )
    for dataset in (
        pipeline(augmentation=everything).train_dataset(crowd, 2),
        pipeline(augmentation=everything, cache=True).train_dataset(crowd, 2),
        pipeline().eval_dataset(crowd, 2),
    ):
        used = dataset_ops(dataset)
        assert {"DecodePng", "ScaleAndTranslate", "BatchDatasetV2"} <= used  # the walk saw the functions
        assert not {op_type for op_type in used if "PyFunc" in op_type or "Generator" in op_type}


@pytest.mark.ci
def test_more_than_m_instances_are_counted_and_train(step, runs, crowd):
    """Row "PyFunc", ours, with what kills other detectors: 120 instances meet 100 rows, 20 are counted."""
    for dataset in (pipeline(augmentation=None).train_dataset(crowd, 2), pipeline().eval_dataset(crowd, 2)):
        batch = next(iter(dataset))
        full = int(np.argmax(batch.dropped))  # the training stream has an order of its own
        assert sorted(batch.dropped.numpy()) == [0, 20]
        assert (batch.classes[full].numpy() >= 0).all() and (batch.classes[1 - full].numpy() < 0).all()
        metrics, gradients = finite(step.compiled(batch))
        assert metrics["boxes_dropped"] == 20.0
        assert metrics["num_positive"] >= ROWS  # each box took at least the anchor that fits it best
        assert largest_gradient(gradients, "pyramid_regression") > 0
    assert step.compiled.experimental_get_tracing_count() == runs.traces  # real batches are no new program
    assert runs.scenes["every row taken"].compiled[0]["boxes_dropped"] == 32.0


# -- anchors ---------------------------------------------------------------------------------------


def test_anchors_with_weights_do_not_load(tmp_path):
    """Row "anchors_0": "Skipping loading of weights for layer anchors_0 due to mismatch (1 vs 0)".

    Keras still says so of a layer that keeps its anchors in a variable and is absent from the file.
    """

    class Anchors(keras.Layer):
        def __init__(self, kept: bool):
            super().__init__(name="anchors_0")
            self.kept = kept

        def build(self, shape):
            if self.kept:
                self.anchors = self.add_weight(shape=(9, 4), name="anchors")

        def call(self, x):
            return x + self.anchors[0] if self.kept else x

    def network(kept):
        x = keras.Input([4])
        return keras.Model(x, keras.layers.Dense(4, name="dense")(Anchors(kept)(x)))

    path = str(tmp_path / "snapshot.h5")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that h5 is a format of old
        network(kept=False).save(path)
    assert len(network(kept=True).trainable_variables) == 3  # and the optimizer moves the anchors
    with pytest.warns(UserWarning, match=r"anchors_0\) due to mismatch in number of weights"):
        network(kept=True).load_weights(path, by_name=True, skip_mismatch=True)


def test_anchors_are_constants(step):
    """Row "anchors_0", ours: no variable is an anchor; in the graph of the step they are one constant."""
    paths = [variable.path for variable in step.model.variables]
    assert len(paths) > 60 and not [path for path in paths if "anchor" in path.lower()]
    anchors = np.concatenate(step.model.anchor_grid.anchors(CANVAS))
    assert anchors.shape == (9 * (64 + 16 + 4 + 1 + 1), 4)
    assert not {tuple(variable.shape) for variable in step.model.variables} & {anchors.shape, (9, 4)}
    graph = step.compiled.get_concrete_function(SCENES["objects"][1]).graph
    constants = [
        tf.make_ndarray(op.get_attr("value"))
        for op in graph.get_operations()
        if op.type == "Const" and op.outputs[0].shape == anchors.shape
    ]
    assert any(np.array_equal(constant, anchors) for constant in constants)


def test_a_snapshot_with_anchors_loads(tmp_path):
    """Row "anchors_0", ours: a fork's weights load, all layers but its anchors, and it is said."""
    source, model = small_model(), small_model()
    for index, variable in enumerate(source.variables):
        variable.assign(np.abs(uniform(*variable.shape, seed=index)))  # variances among them
    path = str(tmp_path / "snapshot.h5")
    with h5py.File(path, "w") as file:
        for layer, weights in model_layers(source).items():
            for name, variable in weights.items():
                file[f"{layer}/{layer}/{name}:0"] = variable.numpy()
        file["anchors_0/anchors_0/anchors:0"] = np.zeros([9, 4], np.float32)
    report = load_weights(model, path)
    assert (report.ignored, report.missing, report.mismatched, report.unused) == (("anchors_0",), (), {}, ())
    for loaded, saved in zip(model.variables, source.variables, strict=True):
        np.testing.assert_array_equal(loaded.numpy(), saved.numpy())


# -- "class Anchors has incompatible Ops - Add" ----------------------------------------------------


def test_add_of_anchors_compiles():
    """Row "class Anchors has incompatible Ops - Add": a list of TensorBoard's; the compiler takes Add."""
    grid = AnchorGrid()

    def shifted(base):  # the original's layer: anchors of one cell plus the shift of every cell
        y, x = tf.meshgrid((tf.range(8.0) + 0.5) * 8.0, (tf.range(8.0) + 0.5) * 8.0, indexing="ij")
        shifts = tf.reshape(tf.stack([x, y, x, y], axis=-1), [64, 1, 4])
        return tf.reshape(tf.raw_ops.Add(x=shifts, y=base[None]), [576, 4])

    half = tf.constant(grid.cell_sides(32, 8) / 2, tf.float32)
    base = tf.concat([-half, half], axis=-1)
    traced = compiled(shifted).get_concrete_function(base)
    assert "Add" in {op.type for op in traced.graph.get_operations()} and not audit.audit(traced)
    np.testing.assert_allclose(compiled(shifted)(base), grid.anchors(CANVAS)[0], rtol=1e-6, atol=1e-5)


def test_decoding_against_anchors_compiles():
    """Row "class Anchors has incompatible Ops - Add", ours: judged by compiling boxes = anchors + deltas."""
    anchors = np.concatenate(AnchorGrid().anchors(CANVAS))
    deltas = uniform(2, len(anchors), 4)
    coder = CornerBoxCoder()
    boxes, gradient = run_compiled(and_gradient(lambda deltas: coder.decode(deltas, anchors)), deltas)
    side = np.tile(anchors[:, 2:] - anchors[:, :2], 2)
    np.testing.assert_allclose(boxes, anchors + 0.2 * deltas.numpy() * side, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(gradient, np.broadcast_to(0.2 * side, boxes.shape), rtol=1e-5)


# -- multiple values for 'training' ----------------------------------------------------------------


class PassingTrainingTwice(keras.layers.BatchNormalization):
    """The wrapper of keras-resnet: frozen by an argument that the caller may have given too."""

    def call(self, x, **kwargs):
        return super().call(x, training=False, **kwargs)


def test_training_given_twice_is_refused():
    """Row "multiple values for keyword argument 'training'": a wrapper passed on what it set itself.

    Python says so still. Keras 3 no longer lets it come to that: it hands `training` only to a call that
    names the argument, so that the wrapper works when it is called as a layer.
    """
    layer, x = PassingTrainingTwice(), uniform(3, 4)
    layer.build(x.shape)
    with pytest.raises(TypeError, match="got multiple values for keyword argument 'training'"):
        layer.call(x, training=True)
    np.testing.assert_allclose(compiled(lambda x: layer(x, training=True))(x), x / np.sqrt(1.001), rtol=1e-5)


@pytest.mark.parametrize(
    "normalization", [pytest.param(name, marks=[pytest.mark.slow] * (name != "batch")) for name in NORMALIZATIONS]
)
def test_training_passes_through_nested_layers(normalization):
    """Row "multiple values for keyword argument 'training'", ours: named in every call, passed once."""
    keras.utils.set_random_seed(0)
    backbone = make_backbone("small", {"blocks": (1, 1, 1, 1), "widths": (16,) * 5}, normalization=normalization)
    images = uniform(2, 32, 32, 3)
    backbone(images)  # creates the weights
    statistics = [variable for variable in backbone.variables if "moving_" in variable.path]
    before = [variable.numpy() for variable in statistics]

    def gradients(images):
        results = []
        for training in (True, False):
            with tf.GradientTape() as tape:
                total = tf.add_n([tf.reduce_sum(level**2) for level in backbone(images, training=training).values()])
            results.append((total, tape.gradient(total, [v.value for v in backbone.trainable_variables])))
        return results

    (trained, by_trained), (inferred, by_inferred) = run_compiled(gradients, images)
    assert len(by_trained) == len(by_inferred) >= 12
    assert all(np.abs(gradient).max() > 0 for gradient in (by_trained[0], by_inferred[0]))
    moved = {not np.array_equal(old, new.numpy()) for old, new in zip(before, statistics, strict=True)}
    assert moved == {"frozen": {False}, "batch": {True}, "group": set()}[normalization]  # it reached all
    assert (trained == pytest.approx(inferred, rel=1e-6)) == (normalization != "batch")
    if normalization != "batch":  # there the next run starts from other statistics
        assert inferred == pytest.approx(float(gradients(images)[1][0]), **SAME_NUMBER)


# -- uint8 and float32 -----------------------------------------------------------------------------


def test_pixels_normalised_on_the_host_do_not_fit_bytes():
    """Row "uint8 and float32": they differed where the host normalised.

    A mean subtracted from bytes wraps around; the same from floats does not.
    """
    pixels, mean = np.array([[[100, 116, 200]]], np.uint8), np.array([103.939, 116.779, 123.68])
    as_floats = (pixels.astype(np.float32) - mean).astype(np.float32)
    as_bytes = as_floats.astype(np.int32).astype(np.uint8)  # what a uint8 input of the network receives
    np.testing.assert_array_equal(as_bytes, [[[253, 0, 76]]])
    assert np.abs(as_bytes - as_floats).max() > 250


@pytest.mark.parametrize("mode", ["caffe", "tf", "torch"])
def test_pixels_are_normalised_in_the_graph(mode):
    """Row "uint8 and float32", ours: cast first, so the numbers are the very same."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype(np.uint8)
    content = tf.constant([[5, 4], [3, 2]])

    def normalized(images):
        return normalize_images(images, content, mode)

    as_bytes = run_compiled(normalized, tf.constant(pixels))
    as_floats, gradient = run_compiled(and_gradient(normalized), tf.constant(pixels, tf.float32))
    np.testing.assert_array_equal(as_bytes, as_floats)
    inside = np.zeros((2, 5, 4, 3))
    inside[0], inside[1, :3, :2] = 1, 1
    x, deviation = pixels.astype(np.float64), np.array([0.229, 0.224, 0.225])
    expected, slope = {
        "caffe": (x[..., ::-1] - [103.939, 116.779, 123.68], np.ones(3)),
        "tf": (x / 127.5 - 1, np.full(3, 1 / 127.5)),
        "torch": ((x / 255 - [0.485, 0.456, 0.406]) / deviation, 1 / 255 / deviation),
    }[mode]
    np.testing.assert_allclose(as_bytes, expected * inside, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, slope * inside, rtol=1e-5)


@pytest.mark.ci
def test_bytes_and_floats_train_alike(step, runs):
    """Row "uint8 and float32", ours: loss and all gradients of the step are the same.

    The compiled step on floats is that of `test_odd_pyramid_sizes`.
    """
    set_class_bias(step.model, MUCH_FOUND)
    metrics, gradients = runs.scenes["objects"].plain
    metrics_of_floats, gradients_of_floats = finite(step.plain(as_floats(SCENES["objects"][1])))
    assert metrics_of_floats == metrics
    assert len(gradients) == len(step.model.trainable_variables)
    for name, gradient in gradients.items():
        # The very same sums, but threads may add their parts in another order.
        np.testing.assert_allclose(
            gradients_of_floats[name], gradient, rtol=0, atol=1e-6 * np.abs(gradient).max(), err_msg=name
        )


# -- how to debug ----------------------------------------------------------------------------------


def test_a_compiled_value_cannot_be_looked_at():
    """Row "How to debug": a breakpoint in `call` sees no numbers, and K.function is gone from Keras 3."""

    def looks(x):
        return x * float(tf.reduce_sum(x).numpy())

    with pytest.raises(AttributeError, match="has no attribute 'numpy'"):
        compiled(looks)(tf.ones([2]))
    assert float(looks(tf.ones([2]))[0]) == 2.0  # run eagerly it does
    assert not hasattr(keras.backend, "function")


def debug(model, batch):
    optimizer = keras.optimizers.SGD(0.0)
    optimizer.build(model.trainable_variables)
    lines = []

    def make_step(probe):
        return make_train_step(model, CRITERION, optimizer, probe=probe, box_statistics=BoxStatistics())

    return debug_step(make_step, model, batch, lines.append), lines


def test_debug_names_the_first_tensor_that_is_not_finite():
    """Row "How to debug", ours: the step run eagerly, a line a tensor, the first bad one named."""
    batch = scene(2, 0, rows=4)
    model = small_model()
    bad, lines = debug(model, batch)
    assert bad is None
    for name in (
        "batch.boxes",
        "targets.labels",
        "layer C3_reduced",
        "outputs.class_logits[4]",
        "mask_logits",
        "gradient of ",
        "metrics.loss",
    ):
        assert [line for line in lines if line.startswith(name)], name
    weights, kernel = [variable.numpy() for variable in model.variables], model.fpn.lateral[0].kernel
    for value, culprit in ((3e38, "layer C3_reduced"), (np.nan, f"variable {kernel.path}")):
        kernel.assign(tf.fill(kernel.shape, value))  # the first is finite, its outputs are not
        assert debug(model, batch)[0] == culprit
        for variable, weight in zip(model.variables, weights):  # all of them: the update has spread it
            variable.assign(weight)
    pixels = batch.image.numpy().astype(np.float32)
    pixels[0, 3, 4, 1] = np.inf
    bad, lines = debug(model, batch._replace(image=tf.constant(pixels)))
    assert bad == "batch.image"
    assert "^^^ first tensor that is not finite: batch.image (1 of 24576 values)" in lines
