"""Which requests a browser may send here for which page."""

import asyncio
import socket

import pytest

from tpu_retinamask.errors import UserError
from tpu_retinamask.serving import server
from tpu_retinamask.serving.guard import Guard, host_name, refused

HERE = frozenset(["localhost", "127.0.0.1", "::1"])


@pytest.mark.parametrize(
    "hosts, host, origin, code",
    [
        (HERE, "localhost:8000", None, None),
        (HERE, "LOCALHOST.", None, None),
        (HERE, "[::1]:8000", "http://[::1]:8000", None),
        (HERE, "127.0.0.1:8000", "http://127.0.0.1:8000", None),
        (HERE, "evil.example:8000", None, "unknown_host"),  # its name was made to lead here
        (HERE, "evil.example:8000", "http://evil.example:8000", "unknown_host"),
        (HERE, "127.0.0.1.evil.example", None, "unknown_host"),
        (HERE, "localhost@evil.example", None, "unknown_host"),
        (HERE, "[", None, "unknown_host"),
        (HERE, "", None, "unknown_host"),
        (HERE, "127.0.0.1:8000", "https://evil.example", "other_origin"),
        (HERE, "127.0.0.1:8000", "http://127.0.0.1:9000", "other_origin"),  # another program of this machine
        (HERE, "127.0.0.1:8000", "null", "other_origin"),
        (None, "models.example", None, None),
        (None, "models.example", "https://models.example", None),
        (None, "models.example", "https://evil.example", "other_origin"),
    ],
)
def test_a_request_is_let_in_by_its_host_and_origin(hosts, host, origin, code):
    headers = {b"host": host.encode()} | ({b"origin": origin.encode()} if origin else {})
    found = refused(headers, hosts)
    assert (found and found.code) == code


def test_no_answer_has_a_header_of_cors():
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})

    async def send(message):
        sent.append(message)

    for host in (b"localhost", b"evil.example"):
        asyncio.run(Guard(app, HERE)({"type": "http", "headers": [(b"host", host)]}, None, send))
    starts = [message for message in sent if message["type"] == "http.response.start"]
    assert [start["status"] for start in starts] == [200, 421]
    for start in starts:
        names = [name for name, _ in start["headers"]]
        assert b"x-content-type-options" in names and not [name for name in names if name.startswith(b"access-control")]


def test_names_of_a_host():
    assert [host_name(text) for text in ("a:1", "a", "[::1]:1", "::", "[")] == ["a", "a", "::1", "", ""]


def test_a_port_that_is_taken_or_an_address_that_is_none_is_told():
    with server.bind("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        with pytest.raises(UserError, match=rf"--host=127.0.0.1 --port={port}: cannot be listened on: Address already"):
            server.bind("127.0.0.1", port)
        assert server.address_of(bound) == f"http://127.0.0.1:{port}" and server.is_loopback(bound)
        assert server.own_names(bound, "localhost", ["Models.example"]) == HERE | {"models.example"}
    for host in ("203.0.113.7", "no such name", "a" * 300):
        with pytest.raises(UserError, match="cannot be listened on"):
            server.bind(host, 0)


def test_bound_to_the_network_any_name_may_be_ours_unless_names_are_given():
    with socket.create_server(("0.0.0.0", 0)) as bound:
        assert not server.is_loopback(bound) and server.own_names(bound, "0.0.0.0", []) is None
        assert "models.example" in server.own_names(bound, "0.0.0.0", ["models.example"])
