"""A training from its sources to its end: prepared, then run, traced dry, or taken one step in slow motion."""

import contextlib
import dataclasses
import functools
import logging
import os
from collections.abc import Callable, Iterable, Mapping

import keras

from tpu_retinamask import signs_of_life
from tpu_retinamask.data.sources.opening import Sources
from tpu_retinamask.data.stream.canvases import Part, training_parts, turns
from tpu_retinamask.data.stream.host_batches import HostBatches
from tpu_retinamask.errors import UserError
from tpu_retinamask.evaluation.report import format_table
from tpu_retinamask.files import write_atomically
from tpu_retinamask.recipe import Recipe
from tpu_retinamask.structures import Batch
from tpu_retinamask.tasks import inference, preflight
from tpu_retinamask.tasks.shown_pictures import ShownPictures, spreads
from tpu_retinamask.tasks.start import Start, noted_before, start_state
from tpu_retinamask.training.checkpoints.disk_room import require_room
from tpu_retinamask.training.checkpoints.images_seen import Seen, configs_in, images_seen
from tpu_retinamask.training.checkpoints.state import TrainState
from tpu_retinamask.training.debug import debug_step
from tpu_retinamask.training.devices import placement
from tpu_retinamask.training.learner import Learner
from tpu_retinamask.training.loop.callbacks import CALLBACKS, Callbacks, Run
from tpu_retinamask.training.loop.canvas_loop import CanvasLoop
from tpu_retinamask.training.loop.device_loop import Loop
from tpu_retinamask.training.loop.history import History
from tpu_retinamask.training.loop.outer_loop import Processes, run_training
from tpu_retinamask.training.loop.progress import Progress
from tpu_retinamask.training.loop.stop_request import StopRequest
from tpu_retinamask.training.runtimes.registry import Runtime

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """A training that is ready: its state stands at `start_step`, and nothing has been written yet.

    Attributes:
      model_dir: where checkpoints, events, configuration and class names go.
      recipe: what is trained, and how.
      sources: annotated images to train on and to score, and their classes.
      runtime: executes the step.
      learner: what a step updates.
      state: what a checkpoint holds of it.
      batch_size: images a step, of all replicas.
      epoch: samples of one.
      total_steps: updates over the whole life of the run.
      start: where it starts, if it has no checkpoint yet.
      config_files: name and text of what is written down of the configuration.
      data_service: grpc://host:port of workers that prepare the batches, or None.
    """

    model_dir: str
    recipe: Recipe
    sources: Sources
    runtime: Runtime
    learner: Learner
    state: TrainState
    batch_size: int
    epoch: int
    total_steps: int
    start: Start
    config_files: Mapping[str, str]
    data_service: str | None


def prepare(
    recipe: Recipe,
    sources: Sources,
    model_dir: str,
    runtime: Runtime,
    *,
    start: Start = Start(),  # noqa: B008  # frozen
    config_files: Mapping[str, str] | None = None,
    data_service: str | None = None,
) -> Training:
    """Create the network and all that belongs to its training; write nothing.

    Args:
      recipe: what is trained, and how.
      sources: from `open_sources`.
      model_dir: of the run.
      runtime: from `RUNTIMES`.
      start: where a new run starts.
      config_files: written into the model directory once the training begins.
      data_service: grpc://host:port of a dispatcher whose workers prepare the batches.

    Raises:
      UserError: files that a TPU's hosts cannot open, a batch that the replicas cannot share, a transform that cannot
        run where the batches are made.
    """
    recipe = dataclasses.replace(recipe, criterion=recipe.criterion.for_classes(sources.classes.names))
    settings = recipe.train
    for name in settings.callbacks:
        CALLBACKS.get(name)  # a slip is told before anything is read
    batch_size = settings.batch_on(runtime.replicas)
    placement.replica_batch_size(runtime.strategy, batch_size)
    placement.refuse_local_paths([("--model_dir", model_dir)])
    for images in (sources.train, sources.validation or ()):
        placement.refuse_local_paths(preflight.files_of(images))
    if settings.transform is not None and data_service:
        raise UserError(
            "train.transform is a Python function, which the workers of --data_service cannot run: use the settings of "
            "Augmentation, which are graph operations"
        )
    if settings.transform is not None and not _is_single(runtime):
        raise UserError(
            "train.transform is a Python function, which cannot feed a TPU or several replicas: use the settings of "
            "Augmentation, which are graph operations"
        )
    step, values = noted_before(model_dir, start)
    seen = images_seen(step, values, batch_size, _configs(model_dir, start, config_files or {}))
    # Of a newest checkpoint that turns out damaged, and whose batch was new, the length is a few steps off.
    epoch = recipe.pipeline.order_of(sources.train).length
    total_steps = settings.total_steps(epoch, batch_size, step=step, seen=seen.images)
    signs_of_life.now("making the network")
    keras.utils.set_random_seed(settings.seed)
    learner = recipe.make_learner(
        runtime.strategy, sources.classes.num_classes, total_steps=total_steps, batch_size=batch_size
    )
    model = learner.model
    log.info("model with %s parameters for %d classes", f"{model.count_params():,}", sources.classes.num_classes)
    preflight.report_coverage(model.anchor_grid, sources.train, recipe.pipeline, recipe.criterion.positive_iou)
    state = TrainState(model_dir, model, learner.optimizer, settings.keep_checkpoints, learner.extra_variables)
    return Training(
        model_dir=model_dir,
        recipe=recipe,
        sources=sources,
        runtime=runtime,
        learner=learner,
        state=state,
        batch_size=batch_size,
        epoch=epoch,
        total_steps=total_steps,
        start=dataclasses.replace(start, otherwise=settings.weights),
        config_files=config_files or {},
        data_service=data_service,
    )


def run(training: Training, *, ends_process: bool = False) -> Progress:
    """Train until all steps are done, resuming from the model directory's last checkpoint.

    Args:
      training: from `prepare`.
      ends_process: see `StopRequest`.

    Raises:
      UserError: the directory cannot be written, belongs to other classes, or holds a checkpoint that does not fit.
      NonFiniteLossError, TrainingInterrupted, SaveError: see `run_training`.
    """
    settings, sources, model_dir = training.recipe.train, training.sources, training.model_dir
    checkpoints = settings.keep_checkpoints + 1 + 2 * bool(sources.validation)
    chief = training.runtime.chief
    if chief:
        require_room(model_dir, training.state.nbytes, checkpoints)
        inference.write_classes(model_dir, sources.classes)
    first = _start(training)
    # Now that it fits the checkpoint: a slip must not replace the configuration of a run.
    training.state.count_images(first, training.batch_size)
    for name, text in training.config_files.items() if chief else ():
        write_atomically(os.path.join(model_dir, name), text)
    loop = _loop(training, first)
    progress = Progress(
        model_dir if chief else None,
        total_steps=training.total_steps,
        steps_per_epoch=training.epoch / training.batch_size,
        batch_size=training.batch_size,
        log_every=settings.log_every,
        start_step=first.step,
        start_images=first.images,
    )
    progress.write_texts(training.config_files)
    history = History(
        model_dir if chief else None,
        first.step,
        stop_after=settings.stop_after,
        collapse_after=settings.collapse_after,
        stop_collapsed=settings.stop_collapsed,
    )
    about = Run(model_dir, first.step, training.total_steps, training.config_files)
    with (
        contextlib.closing(Callbacks(settings.callbacks if chief else (), about)) as callbacks,
        StopRequest(ends_process=ends_process, alone=training.runtime.processes == 1).listening() as stop,
    ):
        run_training(
            loop,
            training.state,
            progress,
            steps_per_loop=settings.steps_per_loop or training.runtime.steps_per_loop,
            checkpoint_every=settings.checkpoint_every,
            checkpoint_minutes=settings.checkpoint_minutes,
            evaluate=_evaluation(training, progress) if sources.validation else None,
            evaluate_every=settings.evaluate_every,
            stop=stop,
            history=history,
            callbacks=callbacks,
            processes=Processes(chief, training.runtime.any_process),
        )
    left_out = f"; left out {progress.boxes_dropped} boxes beyond InputPipeline.max_instances"
    log.info("done: %d steps in %s%s", progress.step, model_dir, left_out if progress.boxes_dropped else "")
    return progress


def dry_run(training: Training) -> str:
    """Trace the whole training, audit its step, and say what was traced; nothing is trained or written.

    Raises:
      ForbiddenOpError: an operation that XLA or a TPU cannot compile; names it and its line.
    """
    first = _start(training)
    signs_of_life.now("tracing the training, to look at every operation", timed=True)
    _, streams = _streams(training, first)
    audited = preflight.audit_training(training.runtime, _step(training), streams)
    said = f"{training.total_steps} steps of {training.batch_size} images; {audited}; nothing was trained"
    log.info("dry run: %s", said)
    return said


def debug(training: Training) -> str | None:
    """Run one step eagerly, print statistics of every tensor, and return the first that is not finite, if one is.

    Raises:
      UserError: there are several replicas.
    """
    refuse_debug_on_many(training.runtime)
    first = _start(training)
    due, streams = _streams(training, first)
    bad = debug_step(training.learner.make_step, training.learner.model, next(iter(streams[due(0)])))
    log.info("debug: %s", f"first tensor that is not finite: {bad}" if bad else "every tensor is finite")
    return bad


def refuse_debug_on_many(runtime: Runtime) -> None:
    """Raise UserError where a step cannot be run eagerly on one device."""
    if not _is_single(runtime):
        raise UserError("--debug runs one step on one device: leave --tpu and --replicas out")


def _is_single(runtime: Runtime) -> bool:
    return runtime.replicas == 1 and not runtime.on_tpu


def _start(training: Training) -> Seen:
    """Return where the run stands, after its state has been set to it."""
    state = training.state
    step = start_state(state, training.total_steps, training.start, training.learner.average)
    if not step or state.restored is None:
        return Seen(step, 0)
    configs = _configs(training.model_dir, training.start, training.config_files)
    seen = images_seen(step, state.restored.values, training.batch_size, configs)
    if not seen.known:
        log.warning(
            "the checkpoint of step %d does not tell how many images it has seen, nor its configuration how many a "
            "step: %d, as now, are taken, so epochs may be miscounted",
            step,
            training.batch_size,
        )
    if seen.images != step * training.batch_size:
        log.info(
            "%d images have been shown so far, %.1f epochs, by batches that were not all of %d: the run goes on "
            "with the next image",
            seen.images,
            seen.images / training.epoch,
            training.batch_size,
        )
    return seen


def _configs(model_dir: str, start: Start, config_files: Mapping[str, str]) -> list[str]:
    """Return where a run that goes on, or the one that it is taken over from, has written down its batch."""
    return [*configs_in(model_dir, config_files), *(configs_in(start.weights, config_files) if start.weights else ())]


def _step(training: Training) -> Callable[[Batch], dict]:
    return training.runtime.step(training.learner.make_step(), jit_compile=training.recipe.train.jit_compile)


def _loop(training: Training, first: Seen) -> Loop:
    """Return what makes the steps of a run from `first` on."""
    due, streams = _streams(training, first)
    step = _step(training)
    loops = [training.runtime.loop(step, batches) for batches in streams]
    return loops[0] if len(loops) == 1 else CanvasLoop(loops, due)


def _streams(training: Training, first: Seen) -> tuple[Callable[[int], int], list[Iterable[Batch]]]:
    """Return which stream each step from `first` on takes its batch from, and the streams, one a canvas and side."""
    images, transform = training.sources.train, training.recipe.train.transform
    if transform is not None and first.step:
        log.warning(
            "the random numbers that train.transform draws start anew: images, order and Augmentation are those of an "
            "unbroken run, its changes are not"
        )
    parts = training_parts(training.recipe.pipeline, images)
    if len(parts) == 1:
        return lambda step: 0, [_batches(training, parts[0], first.step, first.images)]
    order = turns(parts, training.batch_size, first.images)
    streams = [_batches(training, part, before, None) for part, before in zip(parts, order.before(), strict=True)]
    log.info("%d canvases, for which as many programs are compiled", len(training.recipe.pipeline.canvases))
    return order.part, streams


def _batches(training: Training, part: Part, start_step: int, start_image: int | None) -> Iterable[Batch]:
    """Return the batches of a part from one on."""
    pipeline, images, transform = part.pipeline, part.images, training.recipe.train.transform
    if transform is None:
        make_dataset = functools.partial(
            pipeline.train_dataset, images, data_service=training.data_service, start_image=start_image
        )
        return training.runtime.batches(make_dataset, training.batch_size, start_step)
    return HostBatches(pipeline, images, transform, training.batch_size, start_step=start_step, start_image=start_image)


def _evaluation(training: Training, progress: Progress) -> Callable[[], dict]:
    """Return a function that scores the model, or the average of its weights, logs the table and returns scalars.

    TensorBoard is shown a few pictures, and how scores and sizes are spread.
    """
    recipe, average = training.recipe, training.learner.average
    classes, images = training.sources.classes, training.sources.validation or ()
    shown = ShownPictures(images, classes.names)
    detector = inference.make_detector(
        training.learner.model,
        recipe.detection_filter,
        jit_compile=recipe.train.compiles_detection(),
        runtime=training.runtime,
    )

    def evaluate() -> dict:
        with average.in_place() if average else contextlib.nullcontext():
            metrics, results, scoring = inference.evaluate_images(
                detector,
                recipe.pipeline,
                images,
                classes,
                batch_size=training.batch_size,
                max_detections=max(100, recipe.detection_filter.max_detections),
            )
        log.info("evaluation\n%s", format_table(metrics, classes.names))
        least = metrics.best.score if metrics.best else None
        progress.write_seen(shown.pictures(scoring, results, least), spreads(results))
        return {f"val/{key}": value for key, value in metrics.flat().items()}

    return evaluate
