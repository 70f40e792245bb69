"""Which devices PJRT offers, on this machine and on those that train with it."""

import logging
import os
import re

import jax

from tpu_retinamask.errors import UserError
from tpu_retinamask.xla.executable import Devices

log = logging.getLogger(__name__)

WAIT = 300  # seconds for the other processes of a run


def find_devices(replicas: int) -> Devices:
    """Return the devices of a run: all cores of a TPU, else as many as there are replicas.

    Several processes, one a host, share a run where JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID say
    so, or a TPU's own environment; each gives as many devices as any other.

    Args:
      replicas: GPUs to share each batch, or shares of the CPU where there is none; those of all processes together.

    Raises:
      UserError: no device answers, or there are fewer than replicas.
    """
    if replicas < 1:
        raise UserError(f"--replicas={replicas}: expected 1 or more")
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    processes = _number("JAX_NUM_PROCESSES", 1) if address else 1
    if replicas % processes:
        raise UserError(f"--replicas={replicas}: {processes} processes cannot share them equally")
    own = replicas // processes
    try:
        if own > 1 and jax.config.jax_num_cpu_devices < own:
            jax.config.update("jax_num_cpu_devices", own)  # of a machine without an accelerator
        _join_processes(address, processes)
        devices = jax.devices()
    except RuntimeError as error:
        raise UserError(
            f"--runtime=pjrt found no device ({_first_line(error)}). For a GPU install [pjrt-cuda12] or [pjrt-cuda13], "
            "for a TPU [pjrt-tpu]; JAX_PLATFORMS=cpu takes the CPU"
        ) from error
    if devices[0].platform == "tpu":
        if replicas != 1:
            raise UserError(f"--replicas={replicas} on a TPU: it has one replica a core; leave --replicas out")
        chosen = devices
    else:
        chosen = [device for process in range(processes) for device in _first(devices, process, own)]
        if len(chosen) < replicas:
            raise UserError(
                f"--replicas={replicas}: PJRT offers {len(devices)} devices ({devices[0].device_kind}) in "
                f"{processes} processes"
            )
    where = f"{len(chosen)} x {devices[0].device_kind}"
    log.info("PJRT: %s in %d processes, jax %s", where, jax.process_count(), jax.__version__)
    return Devices(chosen)


def _first(devices, process, count):
    return [device for device in devices if device.process_index == process][:count]


def _join_processes(address: str | None, processes: int) -> None:
    """Meet the other processes of a run, where there are any."""
    of_tpu = "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")  # whose hosts know each other
    if not (address or of_tpu) or jax.distributed.is_initialized():
        return
    try:
        if address:
            own = _number("JAX_PROCESS_ID", 0)
            jax.distributed.initialize(address, processes, own, initialization_timeout=WAIT)
        else:
            jax.distributed.initialize()
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the processes of this run do not meet within {WAIT} s ({_first_line(error)}): give each the same "
            "JAX_COORDINATOR_ADDRESS (host:port of the first) and JAX_NUM_PROCESSES, and its own JAX_PROCESS_ID, "
            "from 0"
        ) from error


def _number(name: str, least: int) -> int:
    """Return a setting of the environment."""
    text = os.environ.get(name, "")
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) < least:
        raise UserError(
            f"{name} is {text or 'not set'}, expected a whole number from {least} on, for JAX_COORDINATOR_ADDRESS is "
            "set: each process of a run has the same JAX_NUM_PROCESSES and its own JAX_PROCESS_ID from 0"
        )
    return int(text)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
