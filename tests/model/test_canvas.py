"""A picture has the same detections on every canvas that holds it, alone and among others."""

import numpy as np
import pytest
import tensorflow as tf
from reference import scenes

from tpu_retinamask.model.postprocess import DetectionFilter, detect
from tpu_retinamask.model.retinamask import RetinaMask

_SIZE = (120, 150)  # of the picture; no level divides it
_CANVASES = [(128, 160), (136, 152), (200, 290)]


def _model(backbone, normalization, **options):
    settings = dict(
        backbone=backbone,
        normalization=normalization,
        anchor_sizes=(16, 32, 64, 128, 256),
        fpn_channels=32,
        head_channels=32,
        head_depth=2,
        head_initializer="he_normal",
        mask_channels=16,
        mask_depth=1,
    )
    model = RetinaMask(3, **settings | options).create_weights(_CANVASES[0])
    scenes.fill_weights(model, 3)
    # Outputs of the size that trained ones have, or boxes were all as large as the picture and scores all 0 or 1.
    images, sizes = _laid([_picture(_SIZE)], _SIZE)
    outputs = model(images, tf.constant(sizes))
    boxes = tf.constant([[[20.0, 10.0, 90.0, 80.0]]])
    _rescale(model.class_head.last, np.concatenate(outputs.class_logits, 1), 2.0)
    _rescale(model.box_head.last, np.concatenate(outputs.box_deltas, 1), 0.5)
    _rescale(model.mask_head.last, model.mask_logits(outputs.features, boxes, None, _SIZE), 2.0)
    return model


def _rescale(layer, output, spread):
    layer.set_weights([weight * (spread / np.std(output)) for weight in layer.get_weights()])


def _picture(size, seed=0):
    noise = np.random.default_rng(seed).uniform(size=(-(-size[0] // 8), -(-size[1] // 8), 3))
    return (255 * np.kron(noise, np.ones((8, 8, 1)))[: size[0], : size[1]]).astype(np.uint8)


def _laid(pictures, canvas):
    images = np.zeros((len(pictures), *canvas, 3), np.uint8)
    for image, picture in zip(images, pictures):
        image[: picture.shape[0], : picture.shape[1]] = picture
    return images, np.array([picture.shape[:2] for picture in pictures], np.int32)


def _detect(model, pictures, canvas):
    chosen = DetectionFilter(score_threshold=0.02, max_detections=40)
    images, sizes = _laid(pictures, canvas)
    return [np.asarray(part) for part in detect(model, chosen, tf.constant(images), tf.constant(sizes))]


@pytest.mark.parametrize(
    "backbone, normalization, options",
    [
        ("small", "frozen", {}),
        ("small", "group", {}),
        pytest.param("small", "batch", {"head_normalization": "group"}, marks=pytest.mark.ci),
        pytest.param("resnet50", "frozen", {}, marks=pytest.mark.slow),
        pytest.param("resnet50", "frozen", {"backbone_options": {"stride_in_1x1": False}}, marks=pytest.mark.ci),
        pytest.param("resnet50", "group", {}, marks=pytest.mark.slow),
    ],
)
def test_the_canvas_does_not_matter(backbone, normalization, options):
    model = _model(backbone, normalization, **options)
    picture, others = _picture(_SIZE), [_picture((90, 64), 1), _picture((128, 100), 2)]
    expected = _detect(model, [picture], _SIZE)
    assert (expected[2] >= 0).sum() > 20 and np.median(np.ptp(expected[0], axis=1)) > 10  # something to compare
    for canvas in _CANVASES[:2] if backbone == "resnet50" else _CANVASES:
        for pictures in ([picture], [picture, *others]):
            found = _detect(model, pictures, canvas)
            np.testing.assert_array_equal(found[2][0], expected[2][0])
            for part, reference in zip((found[0], found[1], found[3]), (expected[0], expected[1], expected[3])):
                # Sums over other numbers of zeros, in another order.
                np.testing.assert_allclose(part[0], reference[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backbone", ["small", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_mirrored_kernels_see_a_mirrored_picture_mirrored(backbone):
    # Windows of stride 2 lie at every second cell from the first one on: on a side of 2 ** 7 n + 1 from the last one on
    # too. So the levels without up-sampling are mirrored exactly.
    model = _model(backbone, "frozen")
    picture = _picture((70, 129))

    def levels():
        x = tf.cast(_laid([picture], picture.shape[:2])[0], tf.float32) / 128 - 1
        found = model.backbone(x)
        return [*found.values(), *model.fpn(found)[3:]]  # C3, C4, C5, P6, P7

    # P6 is of P5, which is of C5 alone.
    expected = levels()
    for weight in model.backbone.weights + model.fpn.weights:
        if weight.path.endswith("kernel"):
            weight.assign(weight.numpy()[:, ::-1])
    picture = picture[:, ::-1]
    for level, mirrored in zip(expected, levels()):
        largest = np.abs(level).max()
        # The same products, summed in the other order.
        np.testing.assert_allclose(mirrored[:, :, ::-1] / largest, level / largest, atol=1e-4)
