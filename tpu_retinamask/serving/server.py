"""The socket, and uvicorn on it until a signal."""

import contextlib
import ipaddress
import signal
import socket
from collections.abc import Collection, Iterator
from typing import Any

import uvicorn

from tpu_retinamask.errors import UserError

_CONNECTIONS = 1024  # at a time; more are answered by uvicorn itself, 503
_HEADER_BYTES = 16 << 10
_IDLE_SECONDS = 5


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens, before anything slow is done.

    Args:
      host: name or address of this machine.
      port: 0: any that is free.

    Raises:
      UserError: it is taken, or none of this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
            # Now, not when requests are taken: two that only bind would both be let.
            found.listen(128)
        except BaseException:
            found.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"--host={host} --port={port}: cannot be listened on: {reason}. Give another --port (0: any that is free), "
            "or an address of this machine"
        ) from error
    return found


def is_loopback(bound: socket.socket) -> bool:
    """Tell whether a bound socket is reached from its own machine alone."""
    return ipaddress.ip_address(bound.getsockname()[0].partition("%")[0]).is_loopback


def own_names(bound: socket.socket, host: str, further: Collection[str]) -> frozenset[str] | None:
    """Return the names by which a server may be asked for; None: any, since it is reached by names of others.

    Args:
      bound: its socket.
      host: as it was given.
      further: names that were given besides.
    """
    if not is_loopback(bound) and not further:
        return None
    names = ["localhost", "127.0.0.1", "::1", host, bound.getsockname()[0], *further]
    return frozenset(name.lower().rstrip(".") for name in names)


def address_of(bound: socket.socket) -> str:
    """Return the address of a bound socket, as a browser takes it."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(app: Any, bound: socket.socket, *, ending_seconds: int) -> None:
    """Answer requests until SIGTERM, after which it returns, or SIGINT, after which KeyboardInterrupt is raised.

    Args:
      app: an ASGI application.
      bound: from `bind`; closed at the end.
      ending_seconds: that what is being answered is waited for at the end; a second signal ends it at once.
    """
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        log_level="error",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=ending_seconds,
        h11_max_incomplete_event_size=_HEADER_BYTES,
    )
    with _terminated_quietly():
        uvicorn.Server(config).run(sockets=[bound])


@contextlib.contextmanager
def _terminated_quietly() -> Iterator[None]:
    """Let SIGTERM, which uvicorn sends itself again once it has ended in good order, do nothing more."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
