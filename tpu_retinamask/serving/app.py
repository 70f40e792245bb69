"""The HTTP service: which address answers what."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from tpu_retinamask.serving.answers import MaskForm
from tpu_retinamask.serving.counts import Counts
from tpu_retinamask.serving.gathering import Closed, Gatherer, Job
from tpu_retinamask.serving.page import page
from tpu_retinamask.serving.picture_work import Asked
from tpu_retinamask.serving.refusals import Refusal
from tpu_retinamask.serving.room import RETRY_AFTER, Limits, Room
from tpu_retinamask.serving.uploads import read_picture
from tpu_retinamask.version import __version__

log = logging.getLogger(__name__)

_QUICKER = "a smaller picture, or a server with less to do"
_LARGEST_TOGETHER = 16  # bodies of the largest size that are held at a time; of the usual ones many more
_PICTURE = {
    "requestBody": {
        "required": True,
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}} for kind in ("image/*", "application/octet-stream")
        }
        | {
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"image": {"type": "string", "format": "binary"}}}
            }
        },
    }
}


def make_app(
    gatherer: Gatherer[Asked, bytes], counts: Counts, limits: Limits, about: Mapping[str, Any], *, threshold: float
) -> FastAPI:
    """Return the application.

    Args:
      gatherer: answers pictures.
      counts: told of every answer.
      limits: of a request.
      about: what `/about` says of the model.
      threshold: least score that is told where a request names none.
    """
    # Without its own pages of documentation, which would have a browser fetch scripts from another server.
    app = FastAPI(title="tpu_retinamask", version=__version__, docs_url=None, redoc_url=None)
    room = Room(limits.requests, _LARGEST_TOGETHER * limits.body_bytes)
    told = {**about, "threshold": threshold, "limits": limits._asdict()}

    async def picture_answer(request: Request, least: float, masks: MaskForm) -> bytes:
        begun = time.monotonic()
        with room.seat() as seat:
            reading = read_picture(request.stream(), request.headers, limits.body_bytes, seat.take)
            try:
                data = await asyncio.wait_for(reading, limits.seconds)
            except asyncio.TimeoutError:
                raise Refusal(
                    408, "slow_upload", f"no whole body came in {limits.seconds:g} seconds", "a quicker one"
                ) from None
            try:
                job = gatherer.submit(Asked(data, least, masks))
            except Closed:
                raise _ending() from None
            return await _answer(gatherer, job, request.receive, limits.seconds - (time.monotonic() - begun))

    @app.post("/detect", openapi_extra=_PICTURE)
    async def detect(
        request: Request,
        threshold: Annotated[float, Query(ge=0, le=1, allow_inf_nan=False)] = threshold,
        masks: MaskForm = "polygons",
    ) -> Response:
        """Find the objects of a picture: the bytes of its file as the body, or as the first file of a form."""
        begun, status, code = time.monotonic(), 200, "ok"
        try:
            return Response(await picture_answer(request, threshold, masks), media_type="application/json")
        except ClientDisconnect:
            status, code = 499, "gone"  # as others number it; nobody reads it
            return Response(status_code=400)
        except Refusal as refusal:
            status, code = refusal.status, refusal.code
            return _refused(refusal)
        except Exception:
            status, code = 500, "fault"
            raise
        finally:
            counts.answered(status, code, time.monotonic() - begun)

    @app.get("/")
    async def index() -> Response:
        """Return the page on which a picture is dropped."""
        body, headers = page()
        return Response(body, media_type="text/html", headers=headers)

    @app.get("/about")
    async def describe() -> Response:
        """Say which model answers, and within which limits."""
        return _json(told)

    @app.get("/health")
    async def health() -> Response:
        """Say whether pictures are answered."""
        return _json({"status": "ok"}) if gatherer.alive else _json({"status": "the work has ended"}, 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Return what was counted, as Prometheus reads it."""
        text = counts.text(held=room.requests, held_bytes=room.held, waiting=gatherer.waiting)
        return Response(text, media_type="text/plain; version=0.0.4")

    _say_what_is_wrong(app)
    return app


async def _answer(
    gatherer: Gatherer[Asked, bytes], job: Job[Asked, bytes], receive: Callable[[], Awaitable[Any]], seconds: float
) -> bytes:
    """Wait for an answer for as long as there is time, and somebody who waits for it."""
    answered, gone = asyncio.wrap_future(job.future), asyncio.ensure_future(_end_of(receive))
    try:
        await asyncio.wait({answered, gone}, timeout=max(seconds, 0.0), return_when=asyncio.FIRST_COMPLETED)
        if answered.done() and not answered.cancelled():
            return answered.result()
        if answered.cancelled():
            raise _ending()
        waited = gatherer.withdraw(job)
        if gone.done():
            raise ClientDisconnect
        if waited:
            raise Refusal(
                503, "busy", f"{seconds:.1f} seconds were not enough for its turn", "less to do: send it again",
                retry_after=RETRY_AFTER,
            )  # fmt: skip
        raise Refusal(504, "too_slow", f"its answer took more than {seconds:.1f} seconds", _QUICKER)
    finally:
        gone.cancel()
        answered.add_done_callback(lambda future: future.cancelled() or future.exception())  # nobody waits: not told


def _ending() -> Refusal:
    return Refusal(503, "ending", "the server is ending", "another one, or this one later", retry_after=RETRY_AFTER)


async def _end_of(receive: Callable[[], Awaitable[Any]]) -> None:
    """Wait for the end of the connection: after the body nothing else comes."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _say_what_is_wrong(app: FastAPI) -> None:
    """Answer all that goes wrong in one form, without a word of our code or disk."""

    @app.exception_handler(RequestValidationError)
    async def wrong_question(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        name, got = first["loc"][-1], str(first.get("input"))[:100]
        return _refused(Refusal(422, "bad_parameter", f"{name} is {got!r}", f"{name}: {first['msg']}"))

    @app.exception_handler(HTTPException)
    async def nowhere(request: Request, error: HTTPException) -> Response:
        words = HTTPStatus(error.status_code).phrase
        what = f"{request.method[:20]} {request.url.path[:100]}: {words}"
        expected = "POST /detect, or GET /, /about, /health, /metrics, /openapi.json"
        return _refused(Refusal(error.status_code, words.lower().replace(" ", "_"), what, expected))

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> Response:
        return _refused(Refusal(500, "fault", "a fault of the server, which its own terminal tells of", "none"))


def _refused(refusal: Refusal) -> Response:
    return _json(refusal.content(), refusal.status, refusal.headers())


def _json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps(content), status, headers, media_type="application/json")
