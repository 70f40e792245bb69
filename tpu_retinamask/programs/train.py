r"""Train RetinaMask on a CSV of boxes and masks.

  python -m tpu_retinamask.train --annotations=train.csv --classes=classes.csv --model_dir=runs/mine \
      --val_annotations=val.csv --gin_file=model/small.gin --gin_param='train.epochs = 30'

Run the same command again to go on from the last checkpoint.
"""

import contextlib
import functools
import sys

import keras
from absl import flags

import gin
from tpu_retinamask import (
    config,  # first: it quiets TensorFlow's start-up
    inference,
    preflight,
)
from tpu_retinamask.data.annotations.sources import open_inputs
from tpu_retinamask.data.stream.host_batches import HostBatches
from tpu_retinamask.evaluation.report import format_table
from tpu_retinamask.pretrained.weights import find_checkpoint, load_weights
from tpu_retinamask.training.checkpoints.disk_room import require_room
from tpu_retinamask.training.checkpoints.state import TrainState
from tpu_retinamask.training.debug import debug_step
from tpu_retinamask.training.devices import placement
from tpu_retinamask.training.learner import Learner
from tpu_retinamask.training.loop.device_loop import StepLoop
from tpu_retinamask.training.loop.history import History
from tpu_retinamask.training.loop.outer_loop import StopRequest, TrainingInterrupted, run_training
from tpu_retinamask.training.loop.progress import Progress

FLAGS = flags.FLAGS

STEPS_PER_LOOP_ON_TPU = 100
STOPPED = 143  # exit code after a SIGTERM, as a shell reports it


@gin.configurable
def train(
    annotations: str | None,
    classes: str | None,
    model_dir: str,
    val_annotations: str | None = None,
    *,
    data_dir: str | None = None,
    weights: str | None = None,
    skip_mismatched: bool = False,
    keep_optimizer: bool = False,
    tpu: str | None = None,
    replicas: int = 1,
    dry_run: bool = False,
    debug: bool = False,
    batch_size: int = 8,
    epochs: float = 24.0,
    steps: int | None = None,
    steps_per_loop: int | None = None,
    reference_batch: int | None = None,
    accumulate_steps: int = 1,
    average_decay: float | None = None,
    clip_norm: float | None = 10.0,
    jit_compile: bool = True,
    log_every: int = 20,
    checkpoint_every: int = 500,
    evaluate_every: int | None = None,
    keep_checkpoints: int = 3,
    stop_after: int | None = None,
    collapse_after: int | None = 5,
    stop_collapsed: bool = False,
    on_bad_record: str = "stop",
    seed: int = 0,
    data_service: str | None = None,
    transform=None,
):
    """Train until `epochs` (or `steps`) are done, resuming from the model directory's last checkpoint.

    Args:
      annotations: CSV of the training images.
      classes: CSV of class names.
      model_dir: checkpoints, events, configuration and class names go here.
      val_annotations: CSV of images to score at the end and every `evaluate_every` steps.
      data_dir: written by prepare, in place of the three CSV files.
      weights: where a new run starts: a `.h5` of keras-maskrcnn, keras-retinanet or keras.applications, a model
        directory or checkpoint of ours, or "imagenet"; see `pretrained.weights`. Step, optimizer and schedule start anew.
      skip_mismatched: layers whose shapes differ from those of `weights` start anew (other classes).
      keep_optimizer: take over the whole state of the run that `weights` names: optimizer, step and with it the place
        in the schedule, average and statistics.
      tpu: Cloud TPU to train on, "local" on a TPU VM, "fake:2x2" for a dry run under a TPU that is only described;
        None: this machine's CPU or GPU.
      replicas: GPUs of this machine to share each batch, or shares of its CPU where it has none.
      dry_run: check files, configuration and shapes, trace the whole training, audit its step, then stop.
      debug: run one step eagerly with statistics of every tensor, then stop.
      batch_size: images a step, of all replicas together.
      epochs: passes over the images.
      steps: updates; overrides epochs.
      steps_per_loop: steps without a return to Python; None: STEPS_PER_LOOP_ON_TPU on a TPU, 1 elsewhere. A SIGTERM
        is answered by a checkpoint after the loop, so keep a loop shorter than the notice of a preemption (30 s).
      reference_batch: images a step that `steps` is given for; a larger batch takes fewer. None: taken as given.
      accumulate_steps: parts of the batch whose gradients are summed, to train on more images than fit the memory.
      average_decay: of a moving average of the weights, 0.9998 for one, which is then what is scored, predicted with
        and exported; None: no average.
      clip_norm: largest global norm of the gradients; None: not clipped.
      jit_compile: compile the step as one XLA program.
      log_every: steps between lines.
      checkpoint_every: steps between checkpoints.
      evaluate_every: steps between evaluations; None: at the end only.
      keep_checkpoints: newest checkpoints kept; the best by mask AP is kept besides.
      stop_after: evaluations without a better mask AP after which the training ends; None: never.
      collapse_after: evaluations in a row with a mask AP of 0, or intervals over which the loss has not fallen, after
        which to warn; None: never.
      stop_collapsed: end the training then.
      on_bad_record: "stop" at a file that cannot be used, or "skip" it, counted.
      seed: of the initial weights, the order of the images and their augmentation.
      data_service: grpc://host:port of a dispatcher whose workers prepare the batches, the same as without; see
        data_service.py.
      transform: Python function on each image and its masks, an albumentations pipeline for one; runs on the
        host, so not with `tpu` or `replicas`. See `data.augment.transform` for what goes in and out.
    """
    # Devices, before anything makes TensorFlow look for them
    if placement.is_described(tpu) and not dry_run:
        raise config.UserError(f"--tpu={tpu} describes a TPU that does not exist: add --dry_run to trace the training")
    strategy = placement.make_strategy(tpu, replicas)
    placement.replica_batch_size(strategy, batch_size)
    single = strategy.num_replicas_in_sync == 1 and not placement.is_tpu(strategy)
    if debug and not dry_run and not single:
        raise config.UserError("--debug runs one step on one device: leave --tpu and --replicas out")
    if steps_per_loop is None:
        steps_per_loop = STEPS_PER_LOOP_ON_TPU if placement.is_tpu(strategy) else 1

    # Data
    names, records, val_records = open_inputs(
        annotations, classes, val_annotations, data_dir, on_bad_record=on_bad_record
    )
    placement.refuse_local_paths([("--model_dir", model_dir)])
    placement.refuse_local_paths(preflight.files_of([*records, *(val_records or ())]))
    pipeline = config.InputPipeline(seed=seed)
    if steps and reference_batch:
        steps = max(1, round(steps * reference_batch / batch_size))
    total_steps = steps or max(1, round(epochs * len(records) / batch_size))

    # Model
    keras.utils.set_random_seed(seed)
    learner = Learner(
        strategy,
        lambda: config.RetinaMask(names.num_classes),
        lambda: config.make_optimizer(total_steps, batch_size=batch_size),
        config.Criterion,
        clip_norm=clip_norm,
        accumulate_steps=accumulate_steps,
        average_decay=average_decay,
    )
    model = learner.model
    config.log.info("model with %s parameters for %d classes", f"{model.count_params():,}", names.num_classes)
    preflight.report_coverage(model.anchor_grid, records, pipeline, learner.criterion.positive_iou)

    # State
    training = not (dry_run or debug)
    state = TrainState(model_dir, model, learner.optimizer, keep_checkpoints, learner.extra_variables)
    if training:
        require_room(model_dir, state.nbytes, keep_checkpoints + 1 + 2 * bool(val_records))
        inference.write_classes(model_dir, names)
    start_step = start_state(
        state, total_steps, weights, learner.average, skip_mismatched=skip_mismatched, keep_optimizer=keep_optimizer
    )
    if training:  # now that it fits the checkpoint: a slip must not replace the configuration of a run
        config.write_config(model_dir)
    if transform is not None and data_service:
        raise config.UserError(
            "train.transform is a Python function, which the workers of --data_service cannot run: "
            "use the settings of Augmentation, which are graph operations"
        )
    if transform is None:
        make_dataset = functools.partial(pipeline.train_dataset, records, data_service=data_service)
        batches = placement.distribute_batches(strategy, make_dataset, batch_size, start_step)
    elif single:
        batches = HostBatches(pipeline, records, transform, batch_size, start_step=start_step)
        if start_step:
            config.log.warning(
                "the random numbers that train.transform draws start anew: images, order and Augmentation "
                "are those of an unbroken run, its changes are not"
            )
    else:
        raise config.UserError(
            "train.transform is a Python function, which cannot feed a TPU or several replicas: use "
            "the settings of Augmentation, which are graph operations"
        )

    step = placement.distribute_step(strategy, learner.make_step(), jit_compile=jit_compile)
    if dry_run:
        config.log.info(
            "dry run: %d steps of %d images; %s; nothing was trained",
            total_steps,
            batch_size,
            preflight.audit_training(strategy, step, batches),
        )
        return
    if debug:
        bad = debug_step(learner.make_step, model, next(iter(batches)))
        config.log.info("debug: %s", f"first tensor that is not finite: {bad}" if bad else "every tensor is finite")
        return

    # Loop
    evaluate = None
    if val_records:
        evaluate = make_evaluation(model, names, val_records, pipeline, batch_size, strategy, learner.average)
    progress = Progress(
        model_dir,
        total_steps=total_steps,
        steps_per_epoch=len(records) / batch_size,
        batch_size=batch_size,
        log_every=log_every,
        start_step=start_step,
    )
    history = History(
        model_dir, start_step, stop_after=stop_after, collapse_after=collapse_after, stop_collapsed=stop_collapsed
    )
    with StopRequest().listening() as stop:
        run_training(
            StepLoop(step, batches),
            state,
            progress,
            total_steps=total_steps,
            steps_per_loop=steps_per_loop,
            checkpoint_every=checkpoint_every,
            evaluate=evaluate,
            evaluate_every=evaluate_every,
            stop=stop,
            history=history,
        )
    config.log.info(
        "done: %d steps in %s%s",
        progress.step,
        model_dir,
        f"; left out {progress.boxes_dropped} boxes beyond InputPipeline.max_instances"
        if progress.boxes_dropped
        else "",
    )


def start_state(
    state: TrainState, total_steps: int, weights: str | None, average, *, skip_mismatched: bool, keep_optimizer: bool
) -> int:
    """Go on from the run's own checkpoint, or start from that of another, or from `weights`; return the step.

    Whatever is chosen is said: what was taken over, what starts anew, and the learning rate that follows.
    """
    if keep_optimizer and not weights:
        raise config.UserError("--keep_optimizer takes over the state of the run that --weights names: give both")
    step = state.restore()
    if step is not None:
        if weights:
            config.log.info("--weights %s is passed over: the run goes on from its own checkpoint", weights)
    elif keep_optimizer:
        saved = find_checkpoint(weights)
        if saved is None:
            raise config.UserError(f"--weights {weights} holds no optimizer: leave --keep_optimizer out")
        step = state.take(saved)
    if step is None:
        if weights:
            config.log.info("%s", load_weights(state.model, weights, skip_mismatched=skip_mismatched))
            config.log.info(
                "step, optimizer and schedule start anew: learning rate %.3g at step 0 of %d "
                "(--keep_optimizer takes over those of another run)",
                state.learning_rate,
                total_steps,
            )
        elif state.model.normalization == "frozen":
            config.log.warning(
                "random weights under frozen normalisation: the statistics of the backbone are those of "
                "no data and never change. Give --weights, or set RetinaMask.normalization to 'batch' "
                "or 'group'"
            )
        return 0
    if "average" in state.missing_parts:
        average.restart()
    for part in state.missing_parts:
        config.log.warning(
            "%s holds no %s: %s",
            state.restored.path,
            part.replace("_", " "),
            "it starts from the weights" if part == "average" else "they start anew",
        )
    rate, earlier = state.learning_rate, state.restored.values.get("learning_rate")
    config.log.info(
        "resuming at step %d of %d with a learning rate of %.3g%s",
        step,
        total_steps,
        rate,
        ", which is the end: raise train.epochs or train.steps to go on, or start another --model_dir with "
        "--weights and a schedule of its own"
        if step >= total_steps
        else "",
    )
    if earlier is not None and abs(rate - earlier) > 1e-6 * abs(earlier):
        config.log.warning(
            "the schedule is not the one the checkpoint was saved under: its learning rate was %.3g and "
            "is now %.3g (make_optimizer, train.epochs, train.steps and train.batch_size set it)",
            earlier,
            rate,
        )
    return step


def make_evaluation(model, names, records, pipeline, batch_size, strategy, average=None):
    """Return a function that scores the model, or the average of its weights, on scanned records.

    It logs the table and returns the scalars.
    """
    detection_filter = config.DetectionFilter()
    detector = inference.make_detector(model, detection_filter, strategy=strategy)

    def evaluate():
        with average.in_place() if average else contextlib.nullcontext():
            metrics, _ = inference.evaluate_records(
                detector,
                pipeline,
                records,
                names,
                batch_size=batch_size,
                max_detections=max(100, detection_filter.max_detections),
            )
        config.log.info("evaluation\n%s", format_table(metrics, names.names))
        return {f"val/{key}": value for key, value in metrics.flat().items()}

    return evaluate


def main():
    """Run the program."""
    config.parse_gin(FLAGS.gin_file, FLAGS.gin_param)
    try:
        train(
            FLAGS.annotations,
            FLAGS.classes,
            FLAGS.model_dir,
            FLAGS.val_annotations,
            data_dir=FLAGS.data_dir,
            weights=FLAGS.weights,
            skip_mismatched=FLAGS.skip_mismatched,
            keep_optimizer=FLAGS.keep_optimizer,
            tpu=FLAGS.tpu,
            replicas=FLAGS.replicas,
            dry_run=FLAGS.dry_run,
            debug=FLAGS.debug,
            data_service=FLAGS.data_service,
        )
    except TrainingInterrupted as interruption:
        config.log.info("%s", str(interruption).splitlines()[0])  # gin adds lines of its own
        sys.exit(STOPPED)


if __name__ == "__main__":
    flags.DEFINE_string("annotations", None, "CSV of the training images: image,x1,y1,x2,y2,class,mask.")
    flags.DEFINE_string("classes", None, "CSV of class names: name,id.")
    flags.DEFINE_string(
        "data_dir", None, "Folder written by prepare, in place of --annotations, --val_annotations and --classes."
    )
    flags.DEFINE_string("model_dir", None, "Folder of checkpoints, events and configuration.", required=True)
    flags.DEFINE_string("val_annotations", None, "CSV of images to score.")
    flags.DEFINE_string(
        "weights",
        None,
        "Where a new run starts: a .h5 of keras-maskrcnn, keras-retinanet or "
        "keras.applications, a model directory or checkpoint of ours, or imagenet.",
    )
    flags.DEFINE_bool("skip_mismatched", False, "Start layers anew whose shapes differ from those of --weights.")
    flags.DEFINE_bool(
        "keep_optimizer",
        False,
        "With --weights of a run of ours: take over its optimizer, step, place in the schedule and average as well.",
    )
    flags.DEFINE_string(
        "tpu",
        None,
        'Cloud TPU to train on, "local" on a TPU VM, "fake:2x2" for a dry run without '
        "one; this machine's CPU or GPU otherwise.",
    )
    flags.DEFINE_integer(
        "replicas", 1, "GPUs of this machine to share each batch, or shares of its CPU where it has none."
    )
    flags.DEFINE_string(
        "data_service", None, "grpc://host:port of a dispatcher whose workers prepare the batches; see data_service."
    )
    flags.DEFINE_bool("dry_run", False, "Check files, configuration and shapes, trace the training, then stop.")
    flags.DEFINE_bool(
        "debug",
        False,
        "Run one step eagerly, print statistics of every tensor and name the first that is not finite, then stop.",
    )
    config.define_gin_flags()
    config.run_program(main)
