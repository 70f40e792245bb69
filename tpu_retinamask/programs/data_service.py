r"""Prepare training batches on other machines: the dispatcher and the workers of a tf.data service.

  python -m tpu_retinamask.data_service dispatcher --port=5050 --workers=10.0.0.3:5051,10.0.0.4:5051
  python -m tpu_retinamask.data_service worker --port=5051 --dispatcher=10.0.0.2:5050 --address=10.0.0.3:5051
  python -m tpu_retinamask.train --data_service=grpc://10.0.0.2:5050 ...

The batches are those of a run without the service, in the same order, however many workers there are. Workers open the
files themselves: paths must lead to the same files on all machines, as `gs://` paths do. A worker or a dispatcher that
is lost ends the run, which goes on from its last checkpoint when the same command is run again.

Its network must be closed: TensorFlow's servers listen on every address of their machine and can be given no other, ask
for no password, and run the operations that whoever reaches them sends, the reading of any file among them. A worker
cannot be kept to some folders either, for what it opens comes with the training's graph: let it run as a user who may
read the data alone.
"""

import logging
import re
import socket
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tpu_retinamask import signs_of_life
from tpu_retinamask.data.stream.service import PROTOCOL
from tpu_retinamask.errors import UserError
from tpu_retinamask.programs.command_line import Flags

log = logging.getLogger(__name__)

OPEN = (
    "whoever reaches port %d of this machine can have the %s read any file that it may read, and run what they send: "
    "TensorFlow listens on every address and asks for no password. Close its network to all but this training"
)


def start_dispatcher(port: int, workers: list[str]) -> Any:
    """Start the server that shares the work out.

    Args:
      port: to listen on; 0: any that is free.
      workers: host:port of every worker.

    Returns:
      The running `DispatchServer`; it ends with its object.

    Raises:
      UserError: no workers, an address that is none or stands twice, a port that is taken.
    """
    if not workers:
        raise UserError(
            "--workers is empty: name the host:port of every worker, so that each can be given a fixed "
            "share and the order of the batches never changes"
        )
    for address in workers:
        _check_address("--workers", address)
    if len(set(workers)) < len(workers):
        raise UserError(f"--workers {','.join(workers)}: an address stands twice")
    service = tf.data.experimental.service
    return _start(
        "dispatcher",
        port,
        lambda: service.DispatchServer(
            service.DispatcherConfig(
                port=port,
                protocol=PROTOCOL,
                worker_addresses=workers,
                job_gc_check_interval_ms=10_000,
                job_gc_timeout_ms=60_000,
            )
        ),
    )


def start_worker(port: int, dispatcher: str, address: str, seconds: float = 120.0) -> Any:
    """Start a server that prepares batches.

    Args:
      port: to listen on.
      dispatcher: host:port of the dispatcher.
      address: host:port at which others reach this worker, as the dispatcher's list of workers has it.
      seconds: waited for the dispatcher, which may be starting.

    Returns:
      The running `WorkerServer`; it ends with its object.

    Raises:
      UserError: an address that is none, a dispatcher that does not answer or does not know the address, a port that
        is taken.
    """
    _check_address("--address", address)
    host, port_of_dispatcher = _check_address("--dispatcher", dispatcher)
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, port_of_dispatcher), timeout=10).close()
            break
        except OSError as error:
            if time.monotonic() >= end:
                raise UserError(
                    f"--dispatcher={dispatcher}: nothing answers there ({error}). Start the dispatcher first"
                ) from error
            time.sleep(1.0)
    service = tf.data.experimental.service
    return _start(
        "worker",
        port,
        lambda: service.WorkerServer(
            service.WorkerConfig(
                dispatcher_address=dispatcher,
                worker_address=address,
                port=port,
                protocol=PROTOCOL,
                heartbeat_interval_ms=1000,
                dispatcher_timeout_ms=30_000,
            )
        ),
    )


def _start(what: str, port: int, start: Callable) -> Any:
    if port:  # the server itself ends the process where a port is taken
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError as error:
                raise UserError(f"--port={port}: {error}") from error
    try:
        return start()
    except tf.errors.OpError as error:
        raise UserError(f"the {what} did not start: {error.message}") from error


def _check_address(flag: str, address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not re.fullmatch("[0-9]{1,5}", port) or "/" in host:
        raise UserError(f"{flag}={address!r} is not host:port, such as 10.0.0.3:5051")
    return host, int(port)


def run(flags: Flags, role: str | None = None) -> None:
    """Run the program."""
    if role is None:
        raise UserError("say which: `data_service dispatcher` or `data_service worker`")
    if flags.port is None:
        raise UserError(f"data_service {role} needs --port")
    if role == "dispatcher":
        server = start_dispatcher(flags.port, flags.workers)
        log.info("dispatcher for %d workers on port %d", len(flags.workers), flags.port)
        log.warning(OPEN, flags.port, role)
    else:
        if not flags.dispatcher:
            raise UserError("data_service worker needs --dispatcher=host:port")
        address = flags.address or f"{socket.gethostname()}:{flags.port}"
        server = start_worker(flags.port, flags.dispatcher, address)
        log.info("worker %s of dispatcher %s", address, flags.dispatcher)
        log.warning(OPEN, flags.port, role)
    signs_of_life.now(None)  # it serves until it is stopped
    server.join()
