r"""Train RetinaMask on annotated images.

  python -m tpu_retinamask.train --annotations=train.csv --val_annotations=val.csv --model_dir=runs/mine --minutes=30
  python -m tpu_retinamask.train --annotations=train.csv --classes=classes.csv --model_dir=runs/mine \
      --val_annotations=val.csv --gin_file=recipe/small.gin --gin_param='train.epochs = 30'

Without settings, or with --minutes, it makes a plan for the images, the machine and the time, as `plan` does, and
begins with that. Run the same command again to go on from the last checkpoint.
"""

import contextlib
import logging
import os
import shlex
import time

from tpu_retinamask import config
from tpu_retinamask.errors import UserError
from tpu_retinamask.files import check_folder, write_atomically
from tpu_retinamask.holding import held_folder
from tpu_retinamask.planning.plan import TOLD
from tpu_retinamask.programs import held_out, plan
from tpu_retinamask.programs.command_line import Flags
from tpu_retinamask.programs.runtime_choice import make_runtime
from tpu_retinamask.tasks import training
from tpu_retinamask.tasks.start import Start
from tpu_retinamask.training.loop.stop_request import TrainingInterrupted
from tpu_retinamask.training.runtimes.registry import Runtime

log = logging.getLogger(__name__)

STOPPED = 128  # and the signal: the exit code by which a shell reports it


def run(flags: Flags) -> int:
    """Run the program."""
    start = Start(weights=flags.weights, skip_mismatched=flags.skip_mismatched, keep_optimizer=flags.keep_optimizer)
    began, by_plan = time.monotonic(), plan.planned(flags)
    text = plan.read_plan(flags) if by_plan else None
    config.parse_gin(flags.gin_file, flags.gin_param, resumed=flags.model_dir, planned=text or "")
    config.recipe()  # a slip is told before the images are opened
    # Devices, before anything makes TensorFlow look for them
    runtime = make_runtime(flags)
    if runtime.described and not flags.dry_run:
        raise UserError(f"--tpu={flags.tpu} describes a TPU that does not exist: add --dry_run to trace the training")
    if flags.debug and not flags.dry_run:
        training.refuse_debug_on_many(runtime)
    notes = runtime.chief and not (flags.dry_run or flags.debug)
    with contextlib.ExitStack() as holding:
        if notes:  # of several hosts' processes the one that writes; what is wrong is told before all is made for it
            check_folder(flags.model_dir)
            holding.enter_context(held_folder(flags.model_dir, "train", "--model_dir"))
        return _train(flags, runtime, start, began, text, notes=notes)


def _train(flags: Flags, runtime: Runtime, start: Start, began: float, text: str | None, *, notes: bool) -> int:
    """Train by the text of a plan, where there is one."""
    sources = held_out.sources_of(flags, notes=notes)
    if text is None and plan.planned(flags):
        text = plan.make_plan(flags, sources, runtime, flags.minutes, began, told=TOLD)
        if notes:
            path = os.path.join(flags.model_dir, plan.PLAN_FILE)
            write_atomically(path, text)
            log.info("the whole plan, with the reason of each setting: %s", path)
        config.parse_gin(flags.gin_file, flags.gin_param, resumed=flags.model_dir, planned=text)
    prepared = training.prepare(
        config.recipe(),
        sources,
        flags.model_dir,
        runtime,
        start=start,
        config_files=config.config_files(),
        data_service=flags.data_service,
    )
    if flags.dry_run:
        training.dry_run(prepared)
    elif flags.debug:
        training.debug(prepared)
    else:
        try:
            training.run(prepared, ends_process=True)
        except TrainingInterrupted as interruption:
            log.info("%s", interruption)
            return STOPPED + interruption.signal_number
        if runtime.chief:
            log.info("%s", _what_next(flags, prepared))
    return 0


def _what_next(flags: Flags, trained: training.Training) -> str:
    """Return which weights there are, and the commands that use them."""
    files, best = trained.state.files, trained.state.best.last_noted()
    last = files.last_noted()
    lines = [f"the last weights: {files.path(last[0])}"] if last else []
    if best:
        score = f" ({best[1]['score']:.3f}, where 1 is perfect)" if "score" in best[1] else ""
        lines.append(
            f"the best, by mask AP on the validation images{score}: {trained.state.best.path(best[0])}; "
            "--checkpoint=best takes them"
        )
    scored = {"annotations": flags.val_annotations or "VAL", "images": flags.val_images or flags.images}
    scored |= {"format": flags.format}
    scored = {"data_dir": flags.data_dir} if flags.data_dir else scored
    run = {"model_dir": flags.model_dir}
    pictures = {"output_dir": os.path.join(flags.model_dir, "pictures")}
    return "\n".join(
        [
            *lines,
            "what next:",
            f"  retinamask evaluate {_as_flags(run | scored)}",
            f"  retinamask predict {_as_flags(run | pictures)} FOLDER_OF_PICTURES",
        ]
    )


def _as_flags(given: dict[str, str | None]) -> str:
    """Return the flags that are given, as a shell takes them."""
    return shlex.join(f"--{name}={value}" for name, value in given.items() if value)
