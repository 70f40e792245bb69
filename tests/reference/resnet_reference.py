"""Residual networks on one image in NumPy, with the weights looked up by their keras-resnet names."""

import numpy as np
from reference import conv_reference


def _conv_norm(x, weights, conv, norm, stride, pad=None, padding="same"):
    kernel = weights[f"{conv}/kernel"]
    if pad is not None:
        x = np.pad(x, [[pad, pad], [pad, pad], [0, 0]])
        # "valid" on a padded image = the positions of "same" that start at its corner.
        size = kernel.shape[0]
        rows, columns = ((side - size) // stride + 1 for side in x.shape[:2])
        y = np.array(
            [
                [
                    np.tensordot(x[r * stride : r * stride + size, c * stride : c * stride + size], kernel, 3)
                    for c in range(columns)
                ]
                for r in range(rows)
            ]
        )
    else:
        y = conv_reference.conv2d(x, kernel, np.zeros(kernel.shape[-1]), stride, padding)
    scale = weights[f"{norm}/gamma"] / np.sqrt(weights[f"{norm}/moving_variance"] + 1e-5)
    return (y - weights[f"{norm}/moving_mean"]) * scale + weights[f"{norm}/beta"]


def _max_pool(x, padding):
    """3 x 3 windows of stride 2; padding is that of `conv_reference.conv2d`."""
    height, width = x.shape[:2]
    rows, columns = -(-height // 2), -(-width // 2)
    top = max((rows - 1) * 2 + 3 - height, 0) // 2
    left = max((columns - 1) * 2 + 3 - width, 0) // 2
    if padding == "symmetric":
        top = left = 1
    return np.array(
        [
            [
                x[max(2 * r - top, 0) : 2 * r - top + 3, max(2 * c - left, 0) : 2 * c - left + 3].max(axis=(0, 1))
                for c in range(columns)
            ]
            for r in range(rows)
        ]
    )


def bottleneck_network(image, weights, block_names, conv1_padding="explicit", padding="same"):
    """C3, C4, C5 of an image [H, W, 3]; block_names: one list a stage, such as ["2a", "2b"]."""
    x = _conv_norm(image, weights, "conv1", "bn_conv1", 2, pad=3 if conv1_padding == "explicit" else None)
    x = _max_pool(np.maximum(x, 0), padding)
    outputs = []
    for stage, names in enumerate(block_names):
        for index, name in enumerate(names):
            stride = 2 if stage > 0 and index == 0 else 1
            y = np.maximum(_conv_norm(x, weights, f"res{name}_branch2a", f"bn{name}_branch2a", stride), 0)
            y = np.maximum(_conv_norm(y, weights, f"res{name}_branch2b", f"bn{name}_branch2b", 1), 0)
            y = _conv_norm(y, weights, f"res{name}_branch2c", f"bn{name}_branch2c", 1)
            if index == 0:
                x = _conv_norm(x, weights, f"res{name}_branch1", f"bn{name}_branch1", stride)
            x = np.maximum(x + y, 0)
        outputs.append(x)
    return outputs[1:]


def small_network(image, weights, block_names, padding="same"):
    """C3, C4, C5 of the network of basic blocks."""
    x = np.maximum(_conv_norm(image, weights, "stem", "bn_stem", 2, padding=padding), 0)
    outputs = []
    for names in block_names:
        for index, name in enumerate(names):
            stride = 2 if index == 0 else 1
            windows = padding if stride == 2 else "same"
            y = _conv_norm(x, weights, f"res{name}_branch2a", f"bn{name}_branch2a", stride, padding=windows)
            y = np.maximum(y, 0)
            y = _conv_norm(y, weights, f"res{name}_branch2b", f"bn{name}_branch2b", 1)
            if index == 0:
                kernel = weights[f"res{name}_branch1/kernel"]
                x = conv_reference.conv2d(x, kernel, np.zeros(kernel.shape[-1]), stride)
            x = np.maximum(x + y, 0)
        outputs.append(x)
    return outputs[1:]
