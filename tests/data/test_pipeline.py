"""The whole input pipeline against a slow NumPy reference, its static shapes, its counts."""

import tempfile

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from tpu_retinamask.data.annotations.class_names import read_classes
from tpu_retinamask.data.annotations.csv_annotations import read_annotations
from tpu_retinamask.data.annotations.scan import scan_images
from tpu_retinamask.data.augment.augmentation import Augmentation
from tpu_retinamask.data.images.mask_sampling import sample_masks
from tpu_retinamask.data.stream.pipeline import InputPipeline
from tpu_retinamask.structures import Batch

EVERYTHING = Augmentation(
    horizontal_flip=0.5, vertical_flip=0.5, rot90=0.5, scale_jitter=(0.5, 2.5), brightness=0.2, contrast=0.3
)


def bilinear(picture, scale, height, width):
    """Resample at exactly 1 / scale with half-pixel centres, edges repeated."""

    def weights(count, side):
        centres = np.clip((np.arange(count) + 0.5) / scale - 0.5, 0, side - 1)
        return np.maximum(0, 1 - abs(centres[:, np.newaxis] - np.arange(side)))  # [count, side]

    return np.einsum("yi,ijc,xj->yxc", weights(height, picture.shape[0]), picture, weights(width, picture.shape[1]))


def test_every_field_of_every_image_against_the_reference(records, pipeline, samples, reference_masks):
    found = samples(pipeline().eval_dataset(records, 2))
    assert [int(sample.image_id) for sample in found] == [0, 1, 2, -1]
    for record, sample, scale in zip(records, found, (2.0, 3.2, 1.6)):
        height, width = round(record.height * scale), round(record.width * scale)
        picture = np.asarray(PIL.Image.open(record.image).convert("RGB"))
        expected = np.zeros((64, 64, 3))
        expected[:height, :width] = np.round(bilinear(picture, scale, height, width))
        np.testing.assert_allclose(sample.image, expected, atol=1)
        assert np.mean(sample.image != expected) < 0.01  # ties of the rounding
        np.testing.assert_array_equal(sample.content_size, [height, width])
        np.testing.assert_array_equal(sample.original_size, [record.height, record.width])
        np.testing.assert_allclose(sample.image_scale, scale, rtol=1e-6)
        count = len(record.instances)
        boxes = np.array([instance.box for instance in record.instances]).reshape(-1, 4)
        # A scaled side of 51.2 pixels shows 51: a box that touches the border ends with what is shown.
        boxes = np.minimum(boxes * scale, [width, height, width, height])
        np.testing.assert_allclose(sample.boxes[:count], boxes, rtol=1e-6)
        np.testing.assert_array_equal(sample.boxes[count:], 0)
        classes = [instance.class_id for instance in record.instances]
        np.testing.assert_array_equal(sample.classes, classes + [-1] * (4 - count))
        np.testing.assert_array_equal(
            sample.has_mask, [i.mask is not None for i in record.instances] + [False] * (4 - count)
        )
        np.testing.assert_array_equal(sample.masks[:count], reference_masks(record, 12))
        np.testing.assert_array_equal(sample.masks[count:], 0)
        assert sample.dropped == 0


def test_reference_scene_has_masks_that_can_tell_a_fault(records, reference_masks):
    """Guard the test above: crops differ among instances and under every mirror and turn."""
    crops = [crop for record in records for crop in reference_masks(record, 12) if crop.any()]
    assert len(crops) == 5 and len({crop.tobytes() for crop in crops}) == 5
    for crop in crops:
        assert not crop.all()
        assert all(not np.array_equal(crop, other) for other in (crop[::-1], crop[:, ::-1], crop.T))


def test_a_padding_image_is_zero_and_says_so(records, pipeline, samples):
    padding = samples(pipeline().eval_dataset(records, 4))[3]
    assert padding.image_id == -1 and padding.dropped == 0 and padding.image_scale == 1
    np.testing.assert_array_equal(padding.classes, [-1] * 4)
    for name in ("image", "content_size", "boxes", "masks", "has_mask", "original_size"):
        assert not getattr(padding, name).any(), name


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5])
def test_eval_visits_each_image_once_whatever_the_batch(batch_size, records, pipeline, samples, assert_same_batch):
    one = samples(pipeline().eval_dataset(records, 1))
    found = samples(pipeline().eval_dataset(records, batch_size))
    assert len(found) % batch_size == 0
    for a, b in zip(one, found):
        assert_same_batch(a, b)
    assert all(sample.image_id == -1 for sample in found[3:])


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_every_shape_is_static(mode, records, pipeline):
    built = pipeline(image_size=(48, 80), augmentation=EVERYTHING)
    dataset = built.train_dataset(records, 5) if mode == "train" else built.eval_dataset(records, 5)
    expected = Batch(
        image=((5, 48, 80, 3), tf.uint8),
        content_size=((5, 2), tf.int32),
        boxes=((5, 4, 4), tf.float32),
        classes=((5, 4), tf.int32),
        masks=((5, 4, 12, 12), tf.uint8),
        has_mask=((5, 4), tf.bool),
        image_scale=((5,), tf.float32),
        original_size=((5, 2), tf.int32),
        image_id=((5,), tf.int64),
        dropped=((5,), tf.int32),
    )
    assert Batch(*((tuple(spec.shape), spec.dtype) for spec in dataset.element_spec)) == expected
    for name, tensor in zip(Batch._fields, next(iter(dataset))):
        assert tensor.shape == getattr(expected, name)[0], name


def test_autograph_converts_nothing(records, tmp_path, monkeypatch):
    """Its conversions take seconds of each start, and lie in the temporary folder for ever where a run is killed."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for cache in ("files", "decoded"):
        pipeline = InputPipeline(image_size=(64, 64), max_instances=4, cache=cache, augmentation=EVERYTHING)
        pipeline.train_dataset(records, 2)
        pipeline.eval_dataset(records, 2)
    assert not [*tmp_path.glob("__autograph_generated*")]
    tf.data.Dataset.range(2).map(lambda x: tf.reduce_sum(x))  # what it would have left
    assert [*tmp_path.glob("__autograph_generated*")]


def test_min_side_and_max_side_leave_room_on_the_canvas(records, pipeline, samples):
    sample = samples(pipeline(min_side=30, max_side=36).eval_dataset(records, 1))[0]
    np.testing.assert_allclose(sample.image_scale, 36 / 32, rtol=1e-6)  # 30/24 would make it 40 wide
    np.testing.assert_array_equal(sample.content_size, [27, 36])
    assert sample.image[:27, :36].all(axis=-1).mean() > 0.9
    assert not sample.image[27:].any() and not sample.image[:, 36:].any()


def test_exif_orientation_turns_image_and_keeps_boxes_upright(write, pipeline, samples):
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[0:8, 16:24] = 255  # a block at the top right of the upright picture
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    stored = PIL.Image.fromarray(upright).transpose(PIL.Image.Transpose.ROTATE_90)
    write("x.jpg", stored, exif=exif, quality=95)
    mask = np.zeros((16, 24), np.uint8)
    mask[0:8, 16:24] = 1
    write("m.png", mask)
    rows = read_annotations(write("t.csv", "x.jpg,16,0,24,8,cat,m.png\n"), read_classes(write("c.csv", "cat,0\n")))
    records = scan_images(rows, exif_orientation="apply").images
    sample = samples(pipeline(image_size=(24, 24)).eval_dataset(records, 1))[0]
    np.testing.assert_array_equal(sample.original_size, [16, 24])
    np.testing.assert_array_equal(sample.image[:16] > 127, upright > 127)
    np.testing.assert_array_equal(sample.masks[0], 1)


def test_a_mask_file_used_by_several_images_and_out_of_order_is_right(write, pipeline, samples, reference_masks):
    """Instances of two files alternate, so crops must return to the order of the rows."""
    first, second = np.zeros((10, 10), np.uint8), np.zeros((10, 10), np.uint8)
    first[0:4, 0:4] = np.triu(np.ones((4, 4)))
    second[5:9, 5:9] = np.tril(np.ones((4, 4)))
    for name in ("x.png", "y.png"):
        write(name, np.zeros((10, 10, 3), np.uint8))
    write("first.png", first)
    write("second.png", second)
    text = "".join(
        f"{image}.png,{row}\n"
        for image in "xy"
        for row in ("5,5,9,9,cat,second.png", "1,1,2,2,cat", "0,0,4,4,cat,first.png", "5,5,8,8,cat,second.png")
    )
    records = scan_images(read_annotations(write("t.csv", text), read_classes(write("c.csv", "cat,0\n")))).images
    for sample, record in zip(samples(pipeline(mask_size=4).eval_dataset(records, 2)), records, strict=True):
        np.testing.assert_array_equal(sample.masks, reference_masks(record, 4))
        np.testing.assert_array_equal(sample.masks[0], np.tril(np.ones((4, 4))))
        np.testing.assert_array_equal(sample.has_mask, [True, False, True, True])


def test_a_cell_that_rounds_onto_the_border_stays_inside_the_image(write):
    """Next to 256 float32 knows no half: the centre of a sliver's last cell rounds to the border itself."""
    mask = np.zeros((256, 256), np.uint8)
    mask[:, 0] = mask[0, :] = 1  # what an index one too large would read instead
    path = write("m.png", mask)
    sliver = np.nextafter(np.float32(256), np.float32(0))
    boxes = tf.constant([[sliver, 250, 256, 256], [250, sliver, 256, 256]], tf.float32)
    crops = sample_masks(
        lambda file: tf.io.read_file(path), boxes, tf.constant([0, 0]), tf.constant([0, 0], tf.uint16), 4
    )
    np.testing.assert_array_equal(crops, 0)


def test_cached_files_are_not_opened_again(records, pipeline, samples, assert_same_batch):
    built = pipeline(cache=True)
    dataset = built.eval_dataset(records, 3)
    expected = samples(pipeline().eval_dataset(records, 3))
    for record in records:
        tf.io.gfile.remove(record.image)
    for a, b in zip(expected, samples(dataset), strict=True):
        assert_same_batch(a, b)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"image_size": (0, 64)}, r"image_size is \(0, 64\), expected positive numbers"),
        ({"max_instances": 0}, "max_instances is 0, expected positive numbers"),
        ({"mask_size": -1}, "mask_size is -1, expected positive numbers"),
        ({"min_side": 0}, "min_side is 0, expected positive numbers"),
    ],
)
def test_impossible_sizes_are_refused(wrong, message, pipeline):
    with pytest.raises(ValueError, match=message):
        pipeline(**wrong)


def test_no_images_are_refused(pipeline):
    for build in (pipeline().train_dataset, pipeline().eval_dataset):
        with pytest.raises(ValueError, match="no images: expected at least one image"):
            build([], 1)


FORBIDDEN_OPS = {"PyFunc", "EagerPyFunc", "PyFuncStateless", "Where"}


def test_the_graph_holds_no_python_and_no_where(records, pipeline):
    dataset = pipeline(augmentation=EVERYTHING).train_dataset(records, 2)
    graph = tf.compat.v1.GraphDef.FromString(dataset._as_serialized_graph().numpy())
    used = {node.op for node in graph.node}
    used |= {node.op for function in graph.library.function for node in function.node_def}
    assert not used & FORBIDDEN_OPS
    assert {"DecodePng", "ScaleAndTranslate", "RandomIndexShuffle"} <= used  # the walk saw the functions


def test_nuclei_with_131_instances_run_through_with_any_m(shared_data, samples, reference_masks):
    folder = shared_data / "nuclei"
    classes = read_classes(str(folder / "classes.csv"))
    rows = read_annotations(str(folder / "train.csv"), classes)
    (most,) = scan_images([max(rows, key=lambda row: len(row.instances))]).images
    count = len(most.instances)
    assert count == 131
    for limit, kept in ((100, 100), (150, count)):
        built = InputPipeline(image_size=(512, 512), max_instances=limit, augmentation=None)
        for dataset in (built.train_dataset([most], 1), built.eval_dataset([most], 1)):
            sample = samples(dataset, 1)[0]
            assert (sample.classes >= 0).sum() == kept and sample.dropped == count - kept
            assert sample.masks[:kept].any(axis=(1, 2)).all() and sample.has_mask[:kept].all()
    np.testing.assert_array_equal(sample.masks[:count], reference_masks(most, 112))
