r"""Answer pictures by HTTP with a trained model: a page to drop them on, and JSON.

  python -m tpu_retinamask.serve --model_dir=runs/mine
  curl --data-binary @photo.jpg 'http://127.0.0.1:8000/detect?threshold=0.3&masks=rle'
  curl -F image=@photo.jpg http://127.0.0.1:8000/detect

It listens to this machine alone, unless --host says otherwise: it asks nobody for a password. Pictures that come
together are looked at together; what is too large, too slow or too much is refused by name. Nothing is written to the
disk but compiled programs into --cache_dir. Ctrl-C and SIGTERM end it when what it is answering is answered. See
docs/serving.md.
"""

import dataclasses
import functools
import logging
import socket

import gin

from tpu_retinamask import config, signs_of_life
from tpu_retinamask.programs.command_line import Flags
from tpu_retinamask.programs.own_settings import checked
from tpu_retinamask.programs.runtime_choice import make_runtime
from tpu_retinamask.serving import server
from tpu_retinamask.serving.app import make_app
from tpu_retinamask.serving.counts import Counts
from tpu_retinamask.serving.gathering import Gatherer
from tpu_retinamask.serving.guard import Guard
from tpu_retinamask.serving.picture_work import Asked, PictureWork
from tpu_retinamask.serving.room import Limits
from tpu_retinamask.tasks import inference
from tpu_retinamask.tasks.picture_batches import PictureBatches
from tpu_retinamask.training.runtimes.registry import Runtime
from tpu_retinamask.version import __version__

log = logging.getLogger(__name__)

OPEN = (
    "whoever reaches port %d of this machine can have pictures looked at: there is no authentication and no "
    "encryption. Close its network to all but those who may, or put a proxy before it that asks for a password"
)


@gin.configurable
@checked(
    batch_size=(1, None),
    wait_ms=(0, 1000),
    requests=(1, 10_000),
    body_bytes=(1, 1 << 30),
    max_pixels=(1, None),
    seconds=(0.1, 3600),
)
def serve(
    model_dir: str,
    bound: socket.socket,
    hosts: frozenset[str] | None,
    *,
    runtime: Runtime,
    checkpoint: str = "last",
    threshold: float = 0.5,
    batch_size: int | None = None,
    wait_ms: float = 5.0,
    requests: int = 64,
    body_bytes: int = 16 << 20,
    max_pixels: int = 40_000_000,
    seconds: float = 30.0,
) -> None:
    """Answer pictures with a checkpoint until a signal comes.

    Args:
      model_dir: written by train.
      bound: socket that listens.
      hosts: names by which the server may be asked for; None: any.
      runtime: executes detection.
      checkpoint: "last", "best" by mask AP, or a step.
      threshold: least score that is told where a request names none.
      batch_size: pictures looked at together; one alone has a program of its own. None: 4, on a CPU, which gains
        nothing by it, 1.
      wait_ms: milliseconds for which a picture waits for others.
      requests: held at a time, those at work and those that wait; more are refused.
      body_bytes: of a request at most; all together may have sixteen times as many.
      max_pixels: of a picture at most, where `source.max_pixels` is not less.
      seconds: that a request may take, from its first byte to its answer.
    """
    recipe = config.recipe()
    restored = inference.restore_model(
        model_dir, config.RetinaMask, recipe.pipeline.largest_canvas, checkpoint=checkpoint
    )
    compiled = recipe.train.compiles_detection(None)
    batch_size = batch_size or (1 if runtime.platform == "cpu" else 4)
    make_detector = functools.partial(
        inference.make_detector, restored.model, recipe.detection_filter, jit_compile=compiled, runtime=runtime
    )
    batches = PictureBatches(make_detector, recipe.pipeline, restored.classes, (1, batch_size))
    log.info("%s, step %d: compiling detection", model_dir, restored.checkpoint.step)
    signs_of_life.now("compiling")
    batches.compile()
    counts = Counts()
    reading = recipe.source.pixels
    limits = Limits(body_bytes, min(max_pixels, reading.max_pixels), seconds, requests)
    work = PictureWork(
        batches,
        reading=dataclasses.replace(reading, max_pixels=limits.pixels),
        exif_orientation=inference.orientation_of_new_pictures(recipe.source),
        worked=counts.worked,
    )
    gatherer: Gatherer[Asked, bytes] = Gatherer(work, batch_size=batch_size, wait_seconds=wait_ms / 1000)
    names = [restored.classes.name_of(number) for number in range(restored.classes.num_classes)]
    canvases = " or ".join(f"{width} x {height}" for height, width in recipe.pipeline.canvases)
    about = {
        "model": f"{recipe.network.backbone}, canvas {canvases}",
        "step": restored.checkpoint.step,
        "classes": names,
        "tpu_retinamask": __version__,
    }
    app = Guard(make_app(gatherer, counts, limits, about, threshold=threshold), hosts)
    if not server.is_loopback(bound):
        log.warning(OPEN, bound.getsockname()[1])
    log.info("ready: %s", server.address_of(bound))
    signs_of_life.now(None)  # it serves until it is stopped
    try:
        server.run(app, bound, ending_seconds=5)
    finally:
        gatherer.close()
    log.info("ended")


def run(flags: Flags) -> None:
    """Run the program."""
    with server.bind(flags.host, flags.port) as bound:
        config.parse_gin(
            flags.gin_file, flags.gin_param, model_dir=flags.model_dir, allow_imports=flags.allow_gin_imports
        )
        said = {} if flags.threshold is None else {"threshold": flags.threshold}
        serve(
            flags.model_dir,
            bound,
            server.own_names(bound, flags.host, flags.allowed_hosts),
            runtime=make_runtime(flags),
            checkpoint=flags.checkpoint,
            **said,
        )
