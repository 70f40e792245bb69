"""The end of a server: by which signal, with which exit code, and what becomes of a request that is being answered."""

import http.client
import signal
import subprocess
import sys

import pytest

SCRIPT = """
import asyncio, sys
from tpu_retinamask.serving import server

async def app(scope, receive, send):
    print("asked", flush=True)
    await asyncio.sleep(0.5)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})

with server.bind("127.0.0.1", 0) as bound:
    print(bound.getsockname()[1], flush=True)
    try:
        server.run(app, bound, ending_seconds=5)
    except KeyboardInterrupt:
        sys.exit(130)
assert "tensorflow" not in sys.modules
"""


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it_once_its_request_is_answered(number, code):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], text=True, **pipes)
    connection = http.client.HTTPConnection("127.0.0.1", int(process.stdout.readline()), timeout=20)
    connection.request("GET", "/")
    assert process.stdout.readline() == "asked\n"
    process.send_signal(number)
    assert connection.getresponse().read() == b"ok"
    connection.close()
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (code, "")
