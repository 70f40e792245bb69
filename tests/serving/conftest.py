"""A server on a port of its own, in a thread, whose detector is a stand-in that the tests hold and let go."""

import contextlib
import http.client
import json
import threading
import time

import pytest
import uvicorn
from serving.stand_ins import StandIn

from tpu_retinamask.data.pixel_reading import PixelReading
from tpu_retinamask.serving import server
from tpu_retinamask.serving.app import make_app
from tpu_retinamask.serving.counts import Counts
from tpu_retinamask.serving.gathering import Gatherer
from tpu_retinamask.serving.guard import Guard
from tpu_retinamask.serving.picture_work import PictureWork
from tpu_retinamask.serving.room import Limits


class Served:
    """A server and its stand-in."""

    def __init__(self, port, stand_in, gatherer):
        self.port, self.stand_in, self.gatherer = port, stand_in, gatherer

    def ask(self, method, path, body=None, headers=None):
        """Return (status, headers, JSON or text)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            content = answer.read()
        kind = answer.headers.get_content_type()
        return answer.status, answer.headers, json.loads(content) if kind == "application/json" else content.decode()

    def detect(self, body, query="", **headers):
        """Return (status, JSON) of a picture."""
        status, _, content = self.ask("POST", f"/detect{query}", body, headers)
        return status, content

    def metric(self, name):
        """Return what the server says that a number is."""
        lines = self.ask("GET", "/metrics")[2].splitlines()
        return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(f"retinamask_{name} ")))

    def until(self, condition):
        """Wait until something holds."""
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.01)


@pytest.fixture
def serve():
    """Start a server: serve(limits of `room.Limits`, ...) -> Served; all end with the test."""
    with contextlib.ExitStack() as stack:

        def start(*, body_bytes=1 << 20, pixels=1 << 20, seconds=20.0, requests=8, batch_size=4, wait_seconds=0.0):
            stand_in, counts = StandIn(), Counts()
            limits = Limits(body_bytes, pixels, seconds, requests)
            reading = PixelReading(max_pixels=pixels)
            work = PictureWork(stand_in, reading=reading, exif_orientation="apply", worked=counts.worked)
            gatherer = Gatherer(work, batch_size=batch_size, wait_seconds=wait_seconds)
            app = make_app(gatherer, counts, limits, {"classes": ["cell", "dust"]}, threshold=0.5)
            bound = stack.enter_context(server.bind("127.0.0.1", 0))
            app = Guard(app, server.own_names(bound, "127.0.0.1", []))
            running = uvicorn.Server(
                uvicorn.Config(app, http="h11", lifespan="off", log_config=None, log_level="critical", ws="none")
            )
            thread = threading.Thread(target=running.run, kwargs={"sockets": [bound]}, daemon=True)
            thread.start()

            def end():
                stand_in.let_go.set()
                running.should_exit = True
                thread.join(10)
                gatherer.close()

            stack.callback(end)
            return Served(bound.getsockname()[1], stand_in, gatherer)

        yield start
