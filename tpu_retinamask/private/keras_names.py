"""Names that Keras keeps private: layers within layers, and how its optimizers meet replicas."""

import keras

from tpu_retinamask.private.checking import require, require_attribute

_KNOWN = {"library": "Keras", "distributions": ("keras",), "works": "3.10 to 3.15"}
require(keras.Layer, "_flatten_layers", **_KNOWN)
require_attribute(keras.Layer, "_layers", **_KNOWN)
require(keras.optimizers.SGD, "_all_reduce_sum_gradients", "_get_variable_index", **_KNOWN)


def child_layers(layer: keras.Layer) -> list[keras.Layer]:
    """Return the layers that a layer holds itself."""
    return list(layer._layers)


def all_layers(model: keras.Layer, *, include_self: bool = True) -> list[keras.Layer]:
    """Return a model's layers, those within layers too."""
    return list(model._flatten_layers(include_self=include_self))


def leave_sums_to_caller(optimizer: keras.Optimizer) -> None:
    """Have an optimizer apply gradients as they are given.

    Keras sums them over replicas when it applies them; gradients that are summed and clipped before would be summed
    twice.
    """
    optimizer._all_reduce_sum_gradients = lambda gradients_and_variables: gradients_and_variables


def variable_index(optimizer: keras.Optimizer, variable: keras.Variable) -> int:
    """Return the place of a variable among those that an optimizer was built with."""
    return optimizer._get_variable_index(variable)
