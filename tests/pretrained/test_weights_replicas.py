"""A checkpoint written on one device is restored by two replicas, and back."""

import os
import subprocess
import sys

import numpy as np
import pytest
from reference.small_runs import SMALL, small_run

from tpu_retinamask.pretrained import load
from tpu_retinamask.training.checkpoints.state import TrainState

REPLICAS = """
import sys
import keras, numpy as np, tensorflow as tf
from tpu_retinamask.model.retinamask import RetinaMask
from tpu_retinamask.training.checkpoints.state import TrainState

source, target, options = sys.argv[1], sys.argv[2], eval(sys.argv[3])
cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    model = RetinaMask(2, **options).create_weights((64, 64))
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    optimizer.build(model.trainable_variables)
assert strategy.num_replicas_in_sync == 2
assert TrainState(source, model, optimizer).restore() == 7
for variable in model.variables + optimizer.variables:
    copies = [value.numpy() for value in strategy.experimental_local_results(variable.value)]
    assert all(np.array_equal(copies[0], copy) for copy in copies), variable.path
kernel = model.variables[0]
assert len(strategy.experimental_local_results(kernel.value)) == 2, kernel
kernel.assign(kernel + 1.0)
optimizer.iterations.assign(8)
TrainState(target, model, optimizer).save()
"""


@pytest.mark.slow
def test_one_device_to_two_replicas_and_back(tmp_path):
    model, optimizer = small_run(num_classes=2, seed=6)
    optimizer.iterations.assign(7)
    TrainState(str(tmp_path / "one"), model, optimizer).save()
    process = subprocess.run(
        [sys.executable, "-c", REPLICAS, str(tmp_path / "one"), str(tmp_path / "two"), repr(SMALL)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-3000:]

    expected = [variable.numpy() for variable in model.variables + optimizer.variables]
    expected[0] = expected[0] + np.float32(1.0)  # what the replicas changed
    back, restored = small_run(num_classes=2, seed=7)
    assert TrainState(str(tmp_path / "two"), back, restored).restore() == 8
    expected[len(back.variables) + restored.variables.index(restored.iterations)] = 8
    for variable, value in zip(back.variables + restored.variables, expected):
        np.testing.assert_array_equal(variable.numpy(), value, err_msg=variable.path)
    # And as the start of another run.
    other, _ = small_run(num_classes=2, seed=8)
    load.load_weights(other, str(tmp_path / "two"))
    for variable, value in zip(other.variables, expected):
        np.testing.assert_array_equal(variable.numpy(), value, err_msg=variable.path)
