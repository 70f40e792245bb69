"""Who may ask, as far as a browser tells: pages of other sites may not, under their own name or under ours."""

import json
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from tpu_retinamask.serving.refusals import Refusal

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

# Of every answer. No header of CORS is among them: a page of another site reads none of our answers.
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


class Guard:
    """An ASGI application before another one.

    A name of a stranger's that is made to lead to 127.0.0.1 (DNS rebinding) is told by `Host`; a page that sends a form
    here by `Origin`, which every browser adds to what it sends for a page.
    """

    def __init__(self, app: App, hosts: Collection[str] | None) -> None:
        """Take the application.

        Args:
          app: that answers what is let through.
          hosts: names, in small letters, by which this server may be asked for; None: any.
        """
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Message, receive: Callable, send: Callable) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        refusal = refused(dict(scope["headers"]), self._hosts)
        if refusal is None:
            return await self._app(scope, receive, send_with_headers)
        body = json.dumps(refusal.content()).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send_with_headers({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def refused(headers: dict[bytes, bytes], hosts: Collection[str] | None) -> Refusal | None:
    """Return why a request with these headers, their names in small letters, is refused; None: it is not."""
    host = headers.get(b"host", b"").decode("latin-1").lower()
    name = host_name(host)
    if hosts is not None and name not in hosts:
        return Refusal(
            421,
            "unknown_host",
            f"this server was asked for as {name[:100]!r}",
            f"one of {sorted(hosts)}; whoever starts the server may add names by --allowed_hosts",
        )
    origin = headers.get(b"origin")
    if origin is not None and _place(origin.decode("latin-1").lower()) != host:
        return Refusal(
            403, "other_origin", "a page of another site sent this", f"no header Origin, or that of http://{host[:100]}"
        )
    return None


def host_name(host: str) -> str:
    """Return the name of `name:port`, `[address]:port` or either without a port; empty where there is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _place(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None
