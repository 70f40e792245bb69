"""Runs a lowered program on host CPU devices, one a replica, their sums exchanged as TPU cores would.

  python host_replicas.py program.mlir values.npz results.npz --replicas=4 --steps=2 --inputs=12

A process of its own, since the number of host devices is fixed when jax starts.
"""

import argparse
import os


def main():
    """Run the program `steps` times, its new state the next step's state, and save what every replica ends with."""
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("values")
    parser.add_argument("results")
    parser.add_argument("--replicas", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--inputs", type=int, required=True)
    arguments = parser.parse_args()
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={arguments.replicas}"
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import numpy as np
    from jax._src.interpreters import mlir
    from jax._src.lib import xla_client
    from jaxlib.mlir import ir

    jax.config.update("jax_enable_x64", True)  # image ids are int64
    devices = jax.devices()[: arguments.replicas]
    with mlir.make_ir_context():
        with open(arguments.program, "rb") as file:
            module = ir.Module.parse(file.read())
        options = xla_client.CompileOptions()
        options.num_replicas, options.num_partitions = arguments.replicas, 1
        options.device_assignment = xla_client.DeviceAssignment.create(np.array([[d.id] for d in devices]))
        executable = devices[0].client.compile_and_load(module, xla_client.DeviceList(tuple(devices)), options)

    values = np.load(arguments.values)
    # inputs[step][i] is [replicas, ...]; the state is the same everywhere at the start.
    mesh = jax.sharding.Mesh(np.array(devices), ("replica",))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("replica"))

    def shards(parts):
        return [jax.device_put(part, device) for part, device in zip(parts, devices)]

    count = sum(name.startswith("state_") for name in values.files)
    state = [shards([values[f"state_{i}"]] * len(devices)) for i in range(count)]
    for step in range(arguments.steps):
        inputs = [shards(values[f"input_{step}_{i}"]) for i in range(arguments.inputs)]
        outputs = executable.execute_sharded([_as_sharded(parts, spread, jax) for parts in inputs + state])
        outputs = [list(part) for part in outputs.disassemble_into_single_device_arrays()]
        state = outputs[len(outputs) - count :]
    np.savez(
        arguments.results,
        **{f"state_{i}": np.stack([np.asarray(p) for p in parts]) for i, parts in enumerate(state)},
        **{
            f"output_{i}": np.stack([np.asarray(p) for p in parts])
            for i, parts in enumerate(outputs[: len(outputs) - count])
        },
    )


def _as_sharded(parts, spread, jax):
    shape = parts[0].shape
    if shape:
        return jax.make_array_from_single_device_arrays((len(parts) * shape[0], *shape[1:]), spread, parts)
    replicated = jax.sharding.NamedSharding(spread.mesh, jax.sharding.PartitionSpec())
    return jax.make_array_from_single_device_arrays((), replicated, parts)


if __name__ == "__main__":
    main()
