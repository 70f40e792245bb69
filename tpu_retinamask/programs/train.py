r"""Train RetinaMask on annotated images.

  python -m tpu_retinamask.train --annotations=train.csv --classes=classes.csv --model_dir=runs/mine \
      --val_annotations=val.csv --gin_file=recipe/small.gin --gin_param='train.epochs = 30'

Run the same command again to go on from the last checkpoint.
"""

import logging
import os
import shlex

from tpu_retinamask import config
from tpu_retinamask.data.sources.opening import open_sources
from tpu_retinamask.errors import UserError
from tpu_retinamask.programs.command_line import Flags
from tpu_retinamask.programs.runtime_choice import make_runtime
from tpu_retinamask.tasks import training
from tpu_retinamask.tasks.start import Start
from tpu_retinamask.training.loop.stop_request import TrainingInterrupted

log = logging.getLogger(__name__)

STOPPED = 128  # and the signal: the exit code by which a shell reports it


def run(flags: Flags) -> int:
    """Run the program."""
    start = Start(weights=flags.weights, skip_mismatched=flags.skip_mismatched, keep_optimizer=flags.keep_optimizer)
    config.parse_gin(flags.gin_file, flags.gin_param, resumed=flags.model_dir)
    recipe = config.recipe()
    # Devices, before anything makes TensorFlow look for them
    runtime = make_runtime(flags)
    if runtime.described and not flags.dry_run:
        raise UserError(f"--tpu={flags.tpu} describes a TPU that does not exist: add --dry_run to trace the training")
    if flags.debug and not flags.dry_run:
        training.refuse_debug_on_many(runtime)
    sources = open_sources(
        flags.annotations,
        flags.classes,
        flags.val_annotations,
        flags.data_dir,
        source_format=flags.format,
        settings=config.reading(),
        image_folder=flags.images,
        val_image_folder=flags.val_images,
    )
    prepared = training.prepare(
        recipe,
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
        log.info("%s", _what_next(flags, prepared))
    return 0


def _what_next(flags: Flags, trained: training.Training) -> str:
    """Return which weights there are, and the commands that use them."""
    last, best = trained.state.files.newest(), trained.state.best.newest()
    lines = [f"the last weights: {last.path}"] if last else []
    if best:
        lines.append(
            f"the best ones, by mask AP on the validation images ({best.values['score']:.3f}, where 1 is perfect): "
            f"{best.path}; --checkpoint=best takes them"
        )
    run = shlex.quote(f"--model_dir={flags.model_dir}")
    scored = shlex.quote(f"--annotations={flags.val_annotations}") if flags.val_annotations else "--annotations=VAL"
    scored = shlex.quote(f"--data_dir={flags.data_dir}") if flags.data_dir else scored
    folder = shlex.quote(f"--output_dir={os.path.join(flags.model_dir, 'pictures')}")
    return "\n".join(
        [
            *lines,
            "what next:",
            f"  retinamask evaluate {scored} {run}",
            f"  retinamask predict {run} {folder} FOLDER_OF_PICTURES",
        ]
    )
