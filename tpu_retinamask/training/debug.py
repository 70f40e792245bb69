"""The training step run eagerly, tensor by tensor, until one is not finite."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tpu_retinamask.model.retinamask import RetinaMask
from tpu_retinamask.private.keras_names import all_layers, child_layers
from tpu_retinamask.structures import Batch


class TensorStatistics:
    """Prints a line for every tensor it is shown and remembers the first that is not finite."""

    def __init__(self, write: Callable[[str], object] = print) -> None:
        """Write lines with `write`."""
        self.write = write
        self.first_bad = None
        self.write(f"{'tensor':64s} {'shape':>22s} {'min':>11s} {'mean':>11s} {'max':>11s}  not finite")

    def __call__(self, name: str, value: Any) -> None:
        """Show a tensor, or every tensor of a nested structure."""
        for path, tensor in _named_leaves(name, value):
            array = np.asarray(tf.cast(tensor, tf.float32) if tensor.dtype == tf.bfloat16 else tensor)
            if array.size == 0:
                continue
            numbers = array.astype(np.float64)
            finite = np.isfinite(numbers)
            bad = int(numbers.size - finite.sum())
            shown = numbers[finite] if finite.any() else np.zeros(1)
            self.write(
                f"{path[-64:]:64s} {list(array.shape)!s:>22s} {shown.min():11.4g} {shown.mean():11.4g} "
                f"{shown.max():11.4g}  {bad or ''}"
            )
            if bad and self.first_bad is None:
                self.first_bad = path
                self.write(f"^^^ first tensor that is not finite: {path} ({bad} of {numbers.size} values)")


@contextlib.contextmanager
def watch_layers(model: RetinaMask, statistics: TensorStatistics) -> Iterator[None]:
    """Show the output of every Keras layer of the model while the block runs eagerly."""
    watched = [layer for layer in all_layers(model, include_self=False) if not child_layers(layer)]
    originals = {}
    for layer in watched:
        originals[layer] = layer.call
        layer.call = _shown(layer, layer.call, statistics)
    try:
        yield
    finally:
        for layer, call in originals.items():
            layer.call = call


def _shown(layer, call, statistics):
    def shown_call(*args, **kwargs):
        output = call(*args, **kwargs)
        statistics(f"layer {layer.name}", output)
        return output

    return shown_call


def debug_step(
    make_step: Callable[[Callable], Callable[[Batch], dict]],
    model: RetinaMask,
    batch: Batch,
    write: Callable[[str], object] = print,
) -> str | None:
    """Run one training step eagerly and print statistics of its tensors.

    Args:
      make_step: `probe -> train_step`, the step that training compiles.
      model: RetinaMask.
      batch: Batch.
      write: receives the lines.

    Returns:
      The name of the first tensor that is not finite, in the order of computation; None if all are.
    """
    statistics = TensorStatistics(write)
    for variable in model.variables:
        if not np.isfinite(np.asarray(variable.value)).all():
            statistics(f"variable {variable.path}", tf.convert_to_tensor(variable))
    statistics("batch", batch)
    with watch_layers(model, statistics):
        metrics = make_step(statistics)(batch)
    statistics("metrics", metrics)
    return statistics.first_bad


def _named_leaves(name, value):
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _named_leaves(f"{name}.{key}", item)
    elif isinstance(value, (tuple, list)):
        for index, item in enumerate(value):
            yield from _named_leaves(f"{name}[{index}]", item)
    else:
        yield name, tf.convert_to_tensor(value)
