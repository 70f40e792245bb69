"""The pyramid against NumPy at sides that no level divides."""

import numpy as np
import pytest
from reference import conv_reference, scenes

from tpu_retinamask.model.fpn import FeaturePyramid


def _reference(levels, weights, p6_from, padding):
    def conv(x, name, stride=1):
        windows = padding if stride == 2 else "same"
        return conv_reference.conv2d(x, weights[f"{name}/kernel"], weights[f"{name}/bias"], stride, windows)

    c3, c4, c5 = levels
    m5 = conv(c5, "C5_reduced")
    m4 = conv(c4, "C4_reduced") + conv_reference.upsample_nearest(m5, *c4.shape[:2])
    m3 = conv(c3, "C3_reduced") + conv_reference.upsample_nearest(m4, *c3.shape[:2])
    p5 = conv(m5, "P5")
    p6 = conv(c5 if p6_from == "c5" else p5, "P6", 2)
    return conv(m3, "P3"), conv(m4, "P4"), p5, p6, conv(np.maximum(p6, 0), "P7", 2)


def _named(levels):
    return dict(zip(("C3", "C4", "C5"), levels))


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("p6_from", ["c5", "p5"])
@pytest.mark.parametrize("size", [(67, 101), (64, 64), (130, 33)])
def test_equals_numpy(p6_from, size, padding):
    rng = np.random.default_rng(0)
    levels = [rng.normal(size=(2, -(-size[0] // 2**l), -(-size[1] // 2**l), l)).astype(np.float32) for l in (3, 4, 5)]
    fpn = FeaturePyramid(6, p6_from=p6_from, padding=padding)
    fpn(_named(levels))
    weights = scenes.fill_weights(fpn)
    outputs = fpn(_named(levels))
    for b in range(2):
        expected = _reference([level[b].astype(np.float64) for level in levels], weights, p6_from, padding)
        for output, reference in zip(outputs, expected, strict=True):
            # Four layers of float32 sums of up to 54 terms.
            np.testing.assert_allclose(output[b], reference, atol=5e-5)


def test_fewer_levels_are_the_same_levels():
    levels = [np.random.default_rng(1).normal(size=(1, s, s, 3)).astype(np.float32) for s in (9, 5, 3)]
    whole, short = FeaturePyramid(4, num_levels=5), FeaturePyramid(4, num_levels=3)
    levels = _named(levels)
    whole(levels), short(levels)
    short.set_weights(whole.get_weights()[: len(short.weights)])
    for a, b in zip(whole(levels)[:3], short(levels), strict=True):
        np.testing.assert_array_equal(a, b)


def test_group_normalisation_leaves_no_scale_of_the_backbone():
    levels = [np.random.default_rng(s).normal(size=(2, s, s, 16)).astype(np.float32) for s in (16, 8, 4)]
    plain, normed = FeaturePyramid(8), FeaturePyramid(8, normalization="group")
    outputs = [[np.asarray(x) for x in fpn(_named([s * level for level in levels]))] for fpn in (plain, normed)
               for s in (1, 50)]  # fmt: skip
    for one, other in zip(outputs[0], outputs[1]):
        assert other.std() > 20 * one.std()
    for one, other in zip(outputs[2][:3], outputs[3][:3]):
        np.testing.assert_allclose(one, other, atol=2e-3)  # but for the epsilon of the variance
        for image in one:
            # Groups of 4 channels, of mean 0 and deviation 1.
            parts = image.reshape(-1, 2, 4)
            np.testing.assert_allclose(parts.mean(axis=(0, 2)), 0, atol=1e-5)
            np.testing.assert_allclose(parts.std(axis=(0, 2)), 1, atol=1e-2)


def test_what_it_cannot_build_is_refused():
    with pytest.raises(ValueError, match="p6_from 'C5' is neither"):
        FeaturePyramid(4, p6_from="C5")
    with pytest.raises(ValueError, match="num_levels 6 is not"):
        FeaturePyramid(4, num_levels=6)
