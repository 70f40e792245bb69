"""The page in a real browser: a picture dropped, objects seen, the slider moved, a bad file told.

Wants Chromium, which is spoken to over two pipes; `SCREENSHOTS=FOLDER` keeps what was seen.
"""

import base64
import json
import os
import pathlib
import shutil
import subprocess
import time

import pytest
from serving.stand_ins import png

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")]


class Browser:
    """A headless Chromium with one page."""

    def __init__(self, folder):
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # Chromium's pipes are descriptors 3 and 4.
        command = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
        flags = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run",
            "--disable-dev-shm-usage", "--window-size=1280,1000", f"--user-data-dir={folder}",
        ]  # fmt: skip
        self.process = subprocess.Popen(
            ["bash", "-c", command, CHROMIUM, *flags, "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._read, self._number, self._session, self.events = b"", 0, None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """Send a command and return its result; what is told meanwhile goes to `events`."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._read:
                more = os.read(self._in, 1 << 16)
                assert more, "the browser ended"
                self._read += more
            text, _, self._read = self._read.partition(b"\0")
            told = json.loads(text)
            if told.get("id") == self._number:
                assert "error" not in told, told
                return told["result"]
            self.events.append(told)

    def value(self, expression):
        """Return what a line of JavaScript gives."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def until(self, expression):
        """Wait until it is true."""
        end = time.monotonic() + 60
        while not self.value(expression):
            assert time.monotonic() < end, (expression, self.value("document.body.innerText"))
            time.sleep(0.1)

    def drop(self, path):
        """Drop a file on the middle of the field."""
        x, y = self.value(
            "(({x, y, width, height}) => [x + width / 2, y + height / 2])"
            "(document.getElementById('drop').getBoundingClientRect())"
        )
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def screenshot(self, name):
        """Keep what is seen, where SCREENSHOTS names a folder."""
        if folder := os.environ.get("SCREENSHOTS"):
            picture = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=False)["data"]
            pathlib.Path(folder, f"{name}.png").write_bytes(base64.b64decode(picture))

    def complaints(self):
        """Return errors of the console, and requests to anywhere but the server."""
        return [
            event
            for event in self.events
            if event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")
            and event["params"].get("entry", {}).get("level", "error") == "error"
        ]

    def asked(self):
        """Return the addresses that were asked for."""
        return [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]


@pytest.fixture
def browser(tmp_path):
    opened = Browser(tmp_path / "profile")
    yield opened
    opened.process.terminate()
    opened.process.wait(20)


def test_a_picture_is_dropped_and_its_objects_are_seen(serve, browser, tmp_path):
    server = os.environ.get("SERVED")  # a server with a real model, and a picture for it
    picture = pathlib.Path(os.environ.get("PICTURE", tmp_path / "picture.png"))
    if not server:
        server = f"http://127.0.0.1:{serve().port}"
        picture.write_bytes(png(60, 80, noise=True))
    browser.call("Page.navigate", url=f"{server}/")
    browser.until("document.getElementById('model')?.textContent.includes('step')")
    browser.screenshot("1_empty")
    browser.drop(picture)
    browser.until("/^\\d+ objects/.test(document.getElementById('said').textContent)")
    browser.screenshot("2_found")
    rows = "document.getElementById('rows').rows.length"
    at_half = browser.value(rows)
    assert at_half >= 1
    # Something was drawn in colours beside the picture's own.
    slide = (
        "((e, v) => {{ e.value = v; e.dispatchEvent(new Event('input')) }})(document.getElementById('threshold'), {})"
    )
    browser.value(slide.format(0))
    assert browser.value(rows) > at_half
    browser.screenshot("3_all")
    browser.value(slide.format(1))
    assert browser.value(rows) == 0 and "the best" in browser.value("document.getElementById('said').textContent")
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    assert browser.complaints() == []
    browser.drop(bad)
    browser.until("document.getElementById('said').classList.contains('wrong')")
    assert "not an image" in browser.value("document.getElementById('said').textContent")
    assert browser.value("document.getElementById('found').hidden")  # what was found in another picture
    browser.screenshot("4_bad")
    assert all(url.startswith((server, "blob:", "data:", "about:")) for url in browser.asked())
