"""A lowered program on the devices of PJRT: compiled once, kept on disk, called with values that lie there.

Needs jax, whose client it is, and no TensorFlow.
"""

import contextlib
import hashlib
import importlib.metadata
import logging
import os
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from tpu_retinamask.errors import UserError
from tpu_retinamask.private import jax_names
from tpu_retinamask.xla import stablehlo
from tpu_retinamask.xla.processor import this_cpu

log = logging.getLogger(__name__)

_REPLICA = "replica"
_FORMAT = 1  # of kept programs


class DeviceMemoryError(UserError):
    """The devices have less memory than a program needs."""


class Devices:
    """The devices that share a program, one a replica: those of this process, and by their ids those of all.

    Attributes:
      devices: of all processes, in the order of the replicas.
      local: those of this process.
      replicas: how many there are.
    """

    def __init__(self, devices: Sequence[Any]) -> None:
        """Take devices of jax."""
        self.devices = tuple(devices)
        self.local = tuple(device for device in devices if device.process_index == jax.process_index())
        self.replicas = len(self.devices)
        mesh = jax.sharding.Mesh(np.array(self.devices), (_REPLICA,))
        self._copied = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        self._shared = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(_REPLICA))

    @property
    def platform(self) -> str:
        """Return "cpu", "gpu" or "tpu"."""
        return self.devices[0].platform

    def copy(self, value: np.ndarray) -> jax.Array:
        """Return a value on every device, in memory of its own, so that it can be donated."""
        with jax.enable_x64(True):  # else int64 becomes int32
            # A CPU's array would share the caller's memory, whatever `may_alias` says.
            parts = [jax.device_put(np.array(value), device) for device in self.local]
            return parts[0] if self.replicas == 1 else self.joined(parts)

    def share(self, rows: np.ndarray) -> jax.Array:
        """Return rows divided over the devices in order; a process gives those of its own devices."""
        with jax.enable_x64(True):
            if self.replicas == 1:
                return jax.device_put(rows, self.devices[0])
            return jax.make_array_from_process_local_data(self._shared, rows)

    def joined(self, parts: Sequence[jax.Array]) -> jax.Array:
        """Return as one what each local device holds a copy of."""
        return jax.make_array_from_single_device_arrays(parts[0].shape, self._copied, list(parts))


class Executable:
    """A compiled program; call it with arrays of `Devices`.

    Attributes:
      devices: that run it.
      seconds: that it took to compile, or to be read from disk.
      from_disk: whether it had been kept.
    """

    def __init__(
        self,
        program: bytes,
        devices: Devices,
        *,
        aliases: Sequence[tuple[int, int]] = (),
        cache_dir: str | None = None,
    ) -> None:
        """Compile a program, or read it where the same has been kept.

        Args:
          program: serialized StableHLO of one replica; what replicas sum is all-reduced in it.
          devices: that run it.
          aliases: (argument, output) pairs that share memory: the argument is used up by a call.
          cache_dir: folder of compiled programs; None: they are not kept.

        Raises:
          DeviceMemoryError: it needs more memory than the devices have.
        """
        started = time.monotonic()
        self.devices, self.from_disk = devices, False
        client, device_list = devices.devices[0].client, jax_names.DeviceList(devices.devices)
        options = jax_names.CompileOptions()
        options.num_replicas, options.num_partitions = devices.replicas, 1
        options.device_assignment = jax_names.DeviceAssignment.create(
            np.array([[device.id] for device in devices.devices])
        )
        module = stablehlo.parse(program, aliases)
        path = cache_dir and pathlib.Path(cache_dir) / f"{_digest(module, devices)}.pjrt"
        if path and path.exists():
            try:
                self._loaded = client.deserialize_executable(path.read_bytes(), device_list, options)
                self.from_disk = True
            except (jax.errors.JaxRuntimeError, OSError):
                path.unlink(missing_ok=True)  # half a file, or of a plugin that has changed without a new version
        if not self.from_disk:
            with _memory_told():
                self._loaded = client.compile_and_load(module, device_list, options)
            if path:
                _keep(path, client, self._loaded)
        self.seconds = time.monotonic() - started

    def __call__(self, arguments: Sequence[jax.Array]) -> list[list[jax.Array]]:
        """Start the program and return, of each output, what each local device holds; it need not be there yet.

        Raises:
          DeviceMemoryError: the devices' memory is full.
        """
        with _memory_told():
            return self._loaded.execute_sharded(list(arguments)).disassemble_into_single_device_arrays()

    @property
    def memory(self) -> dict[str, int]:
        """Return the compiler's own report: bytes of arguments, outputs, aliases (in both), temporaries; the peak."""
        stats = self._loaded.get_compiled_memory_stats()
        found = {
            "argument": stats.argument_size_in_bytes,
            "output": stats.output_size_in_bytes,
            "alias": stats.alias_size_in_bytes,
            "temporary": stats.temp_size_in_bytes,
        }
        return found | {"peak": found["argument"] + found["output"] - found["alias"] + found["temporary"]}

    @property
    def hlo(self) -> str:
        """Return the optimised program."""
        return self._loaded.hlo_modules()[0].to_string()


@contextlib.contextmanager
def _memory_told() -> Iterator[None]:
    """Turn the runtime's error for want of memory into one that says what to do."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise DeviceMemoryError(
            f"the device's memory is too small for this program ({str(error).strip().splitlines()[0]}): lower "
            "train.batch_size or InputPipeline.image_size, raise train.accumulate_steps, or set RetinaMask.dtype = "
            "'mixed_bfloat16'"
        ) from error


def _digest(module, devices):
    """Name a compiled program by all that decides it."""
    client = devices.devices[0].client
    asked = [
        stablehlo.digest(module),
        [device.id for device in devices.devices],
        len(devices.local),
        devices.devices[0].device_kind,
        client.platform_version,
        [importlib.metadata.version(package) for package in ("jax", "jaxlib")],
        os.environ.get("XLA_FLAGS"),
        os.environ.get("LIBTPU_INIT_ARGS"),
        this_cpu() if devices.platform == "cpu" else "",
        _FORMAT,
    ]
    return hashlib.sha256(repr(asked).encode()).hexdigest()[:24]


def _keep(path, client, loaded):
    """Write a compiled program; where that fails it is only compiled again next time."""
    try:
        serialized = client.serialize_executable(loaded)
    except jax.errors.JaxRuntimeError:
        return  # a plugin that cannot
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(serialized)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        log.warning("%s: the compiled program was not kept: %s", path, error)
