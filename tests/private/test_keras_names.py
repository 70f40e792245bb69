"""The wall around Keras' private names."""

import subprocess
import sys

import keras

from tpu_retinamask.private import keras_names


def test_importing_us_leaves_the_devices_to_be_chosen():
    # An optimizer or a variable made on import starts TensorFlow: two replicas on one CPU, and described TPUs, are then
    # refused, and a GPU's memory is taken by programs that do not compute.
    code = (
        "import tensorflow as tf, tpu_retinamask.config, tpu_retinamask.tasks.training, tpu_retinamask.xla.audit\n"
        "cpu = tf.config.list_physical_devices('CPU')[0]\n"
        "tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)\n"
        "print(len(tf.config.list_logical_devices('CPU')))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["2"], done.stderr[-1500:]


def test_layers_within_layers():
    class Pair(keras.Layer):
        def __init__(self):
            super().__init__(name="pair")
            self.dense = keras.layers.Dense(1, name="dense")
            self.rows = [[keras.layers.Dense(1, name="row")]]

    class Outer(keras.Layer):
        def __init__(self):
            super().__init__(name="outer")
            self.pair = Pair()

    outer = Outer()
    assert [layer.name for layer in keras_names.child_layers(outer)] == ["pair"]
    assert {layer.name for layer in keras_names.child_layers(outer.pair)} == {"dense", "row"}
    assert {layer.name for layer in keras_names.all_layers(outer)} == {"outer", "pair", "dense", "row"}
    assert {layer.name for layer in keras_names.all_layers(outer, include_self=False)} == {"pair", "dense", "row"}
