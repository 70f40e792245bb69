"""The service over a real connection: what it answers, what it refuses, and that it holds no more than it says."""

import concurrent.futures
import http.client
import json
import re
import socket

import pytest
from serving.stand_ins import HEIGHT, WIDTH, png

from tpu_retinamask.data.pixel_reading import PixelReading
from tpu_retinamask.serving.picture_work import Asked, PictureWork


def test_a_picture_is_answered_as_bytes_and_in_a_form(serve):
    served = serve()
    status, told = served.detect(png())
    assert (status, told["width"], told["height"], told["exif_orientation"]) == (200, WIDTH, HEIGHT, "apply")
    assert [found["class"] for found in told["detections"]] == ["cell"] and "polygons" in told["detections"][0]
    form = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + png() + b"\r\n--x--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    assert served.detect(form, **kind) == (200, told)
    status, more = served.detect(png(), "?threshold=0.1&masks=rle")
    assert [found["class"] for found in more["detections"]] == ["cell", "dust"] and "rle" in more["detections"][0]
    assert served.metric("pictures_total") == 3 and served.metric("held_requests") == served.metric("held_bytes") == 0
    assert served.ask("GET", "/health")[2] == {"status": "ok"}
    about = served.ask("GET", "/about")[2]
    assert about["threshold"] == 0.5 and about["limits"]["body_bytes"] == 1 << 20 and about["classes"][0] == "cell"
    assert "/detect" in served.ask("GET", "/openapi.json")[2]["paths"]


BIG = png(40, 40)


@pytest.mark.parametrize(
    "method, path, body, headers, status, code",
    [
        ("POST", "/detect", b"", {}, 400, "empty_body"),
        ("POST", "/detect", b"<svg>", {}, 415, "not_an_image"),
        ("POST", "/detect", png()[:-20], {}, 422, "damaged_image"),
        ("POST", "/detect", BIG, {}, 413, "too_many_pixels"),
        ("POST", "/detect", b"a" * 3000, {}, 413, "body_too_large"),
        ("POST", "/detect", iter([b"a" * 1500, b"a" * 1500]), {}, 413, "body_too_large"),  # says no length
        ("POST", "/detect?threshold=2", png(), {}, 422, "bad_parameter"),
        ("POST", "/detect?threshold=nan", png(), {}, 422, "bad_parameter"),
        ("POST", "/detect?masks=all", png(), {}, 422, "bad_parameter"),
        ("POST", "/detect", png(), {"Host": "evil.example"}, 421, "unknown_host"),
        ("POST", "/detect", png(), {"Origin": "https://evil.example"}, 403, "other_origin"),
        ("GET", "/detect", None, {}, 405, "method_not_allowed"),
        ("GET", "/../../etc/passwd", None, {}, 404, "not_found"),
        ("GET", "/docs", None, {}, 404, "not_found"),  # it would fetch scripts from elsewhere
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_request_is_refused_by_name(serve, method, path, body, headers, status, code):
    served = serve(body_bytes=2000, pixels=1599)
    got, answered, content = served.ask(method, path, body, headers)
    assert (got, content["error"]["code"]) == (status, code), content
    assert set(content["error"]) == {"code", "what", "expected"} and not re.search(
        r"Traceback|\.py|site-packages|--gin_param", str(content)
    )
    assert not [name for name in answered if name.lower().startswith("access-control")]
    assert served.detect(png())[0] == 200  # and the next is answered


def test_a_bad_picture_does_not_take_the_others_of_its_batch_along(serve):
    served = serve()
    work = PictureWork(served.stand_in, reading=PixelReading(), exif_orientation="apply")
    answers = work([Asked(data, 0.5, "none") for data in (png(), b"bad", png(9, 9))])
    assert [type(one) for one in answers] == [bytes, type(answers[1]), bytes]
    assert answers[1].code == "not_an_image" and json.loads(answers[2])["height"] == 9
    assert served.stand_in.sizes == [2]
    assert [one.code for one in work([Asked(b"bad", 0.5, "none")])] == ["not_an_image"]  # nothing to run


def test_a_fault_of_ours_is_told_without_its_inside(serve):
    served = serve()
    served.stand_in.error = RuntimeError("/secret/path.py")
    status, told = served.detect(png())
    assert (status, told["error"]["code"]) == (500, "fault") and "secret" not in str(told)
    served.stand_in.error = None
    assert served.detect(png())[0] == 200 and served.ask("GET", "/health")[0] == 200
    served.gatherer.close()
    assert served.detect(png())[1]["error"]["code"] == "ending" and served.ask("GET", "/health")[0] == 503


def test_two_hundred_at_once_are_held_within_the_bound_and_the_rest_is_told_to_come_again(serve):
    body = png(500, 500, noise=True)
    served = serve(requests=8, batch_size=4)
    served.stand_in.let_go.clear()
    with concurrent.futures.ThreadPoolExecutor(200) as clients:
        asked = [clients.submit(served.ask, "POST", "/detect", body) for _ in range(200)]
        served.until(lambda: sum(one.done() for one in asked) == 192)
        assert served.metric("held_requests") == 8 and served.metric("held_bytes") == 8 * len(body)
        assert served.metric("waiting_pictures") >= 4
        served.stand_in.let_go.set()
        answers = [one.result() for one in asked]
    refused = [answer for answer in answers if answer[0] != 200]
    assert len(refused) == 192
    assert {(status, headers["Retry-After"], told["error"]["code"]) for status, headers, told in refused} == {
        (503, "1", "busy")
    }
    assert sum(served.stand_in.sizes) == 8 and max(served.stand_in.sizes) == 4
    assert served.metric("held_requests") == served.metric("held_bytes") == 0
    assert served.detect(png())[0] == 200


def test_bodies_together_have_their_bound(serve):
    served = serve(requests=40, body_bytes=5000, seconds=5.0)
    served.stand_in.let_go.clear()
    body = png() + bytes(4900)
    with concurrent.futures.ThreadPoolExecutor(20) as clients:
        asked = [clients.submit(served.ask, "POST", "/detect", body) for _ in range(20)]
        served.until(lambda: sum(one.done() for one in asked) == 20 - 16 * 5000 // len(body))
        assert served.metric("held_bytes") <= 16 * 5000
        served.stand_in.let_go.set()
        assert sorted({one.result()[0] for one in asked}) == [200, 503]


def test_what_takes_too_long_is_told_and_given_up(serve):
    served = serve(seconds=0.3, batch_size=1)
    served.stand_in.let_go.clear()
    with concurrent.futures.ThreadPoolExecutor(2) as clients:
        first = clients.submit(served.ask, "POST", "/detect", png())
        assert served.stand_in.begun.wait(10)
        second = clients.submit(served.ask, "POST", "/detect", png())
        assert (first.result()[0], first.result()[2]["error"]["code"]) == (504, "too_slow")
        status, headers, told = second.result()
        assert (status, told["error"]["code"], headers["Retry-After"]) == (503, "busy", "1")
    assert served.gatherer.waiting == 0 and served.metric("held_bytes") == 0
    served.stand_in.let_go.set()
    assert served.detect(png())[0] == 200
    assert served.stand_in.sizes == [1, 1]  # the second was never looked at


def test_a_body_that_does_not_come_is_not_waited_for(serve):
    served = serve(seconds=0.3)
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    connection.putrequest("POST", "/detect")
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"some")
    answer = connection.getresponse()
    assert answer.status == 408 and json.loads(answer.read())["error"]["code"] == "slow_upload"
    connection.close()
    assert served.metric("held_bytes") == 0


def test_nobody_works_for_who_has_gone(serve):
    served = serve(batch_size=1)
    served.stand_in.let_go.clear()
    with concurrent.futures.ThreadPoolExecutor(1) as clients:
        first = clients.submit(served.detect, png())
        assert served.stand_in.begun.wait(10)
        body = png()
        with socket.create_connection(("127.0.0.1", served.port)) as gone:
            gone.sendall(b"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            served.until(lambda: served.gatherer.waiting == 1)
        served.until(lambda: served.gatherer.waiting == 0)
        served.stand_in.let_go.set()
        assert first.result()[0] == 200
    served.until(lambda: served.metric("held_requests") == 0)
    assert served.stand_in.sizes == [1]
    assert 'code="gone"} 1' in served.ask("GET", "/metrics")[2]


def test_the_page_runs_its_own_script_and_asks_no_other_server(serve):
    served = serve()
    status, headers, page = served.ask("GET", "/")
    assert status == 200 and headers.get_content_type() == "text/html"
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy and "script-src 'sha256-" in policy
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//|@import|innerHTML|url\(", page)


def test_metrics_are_lines_of_prometheus(serve):
    served = serve()
    served.detect(png())
    served.detect(b"bad")
    text = served.ask("GET", "/metrics")[2]
    assert 'retinamask_requests_total{status="200",code="ok"} 1' in text
    assert 'retinamask_requests_total{status="415",code="not_an_image"} 1' in text
    assert served.metric("request_seconds_count") == 2 and served.metric("batches_total") == 1
    assert served.metric("objects_total") == 2 and served.metric("resident_bytes") > 1 << 20
    labels = r'(\{\w+="[^"]*"(,\w+="[^"]*")*\})?'
    for line in text.splitlines():
        assert re.fullmatch(rf"# (HELP|TYPE) retinamask_\w+ .+|retinamask_\w+{labels} \S+", line), line
