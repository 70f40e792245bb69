r"""Plan a training: its settings, from the images, the machine and the minutes that there are, each with its reason.

  python -m tpu_retinamask.plan --annotations=train.csv --val_annotations=val.csv --model_dir=runs/mine --minutes=30
  python -m tpu_retinamask.train --annotations=train.csv --val_annotations=val.csv --model_dir=runs/mine

Writes MODEL_DIR/plan.gin, which can be read and edited, and which train begins with; train makes the same plan where it
is given no settings. What --gin_file and --gin_param say wins over the plan, here and there.
"""

import ast
import logging
import os
import re
import time
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tpu_retinamask import config, signs_of_life
from tpu_retinamask.data.image_arrays import image_arrays
from tpu_retinamask.data.sources.opening import Sources
from tpu_retinamask.data.stream.decoded_cache import available_memory
from tpu_retinamask.data.stream.pipeline import InputPipeline
from tpu_retinamask.errors import UserError
from tpu_retinamask.files import check_folder, read_text, write_atomically
from tpu_retinamask.holding import held_folder
from tpu_retinamask.model.backbones.efficientnet_lite import package_of
from tpu_retinamask.planning.fingerprint import fingerprint
from tpu_retinamask.planning.plan import minutes_of
from tpu_retinamask.planning.rules import Machine, plan_network
from tpu_retinamask.planning.schedule import Speed, plan_schedule
from tpu_retinamask.pretrained.torch_file import installed_file
from tpu_retinamask.programs.command_line import Flags
from tpu_retinamask.programs.flag_kinds import MINUTES
from tpu_retinamask.programs.held_out import sources_of
from tpu_retinamask.programs.runtime_choice import make_runtime
from tpu_retinamask.tasks.step_speed import measure_step
from tpu_retinamask.training.loop.stop_request import StopRequest
from tpu_retinamask.training.runtimes.registry import Runtime

log = logging.getLogger(__name__)

PLAN_FILE = "plan.gin"


def run(flags: Flags) -> None:
    """Run the program."""
    began = time.monotonic()
    path = os.path.join(flags.model_dir, PLAN_FILE)
    for name in (PLAN_FILE, config.CONFIG_FILE):
        if tf.io.gfile.exists(os.path.join(flags.model_dir, name)):
            raise UserError(
                f"{flags.model_dir} holds a {name} already, which is kept: remove it, or give another --model_dir"
            )
    config.parse_gin(flags.gin_file, flags.gin_param)
    config.recipe()  # a slip is told before the images are opened
    check_folder(flags.model_dir)
    runtime = make_runtime(flags)
    with held_folder(flags.model_dir, "plan", "--model_dir"):
        sources = sources_of(flags, notes=runtime.chief)
        text = make_plan(flags, sources, runtime, flags.minutes, began)
        write_atomically(path, text)
    log.info("wrote %s; `retinamask train` with the same --annotations and --model_dir begins with it", path)


def planned(flags: Flags) -> bool:
    """Tell whether a training begins with a plan: one is there, minutes are given, or no settings are."""
    return bool(
        flags.minutes is not None
        or tf.io.gfile.exists(os.path.join(flags.model_dir, PLAN_FILE))
        or not (
            flags.gin_file
            or flags.gin_param
            or flags.dry_run
            or flags.debug
            or tf.io.gfile.exists(os.path.join(flags.model_dir, config.CONFIG_FILE))  # an earlier run without one
        )
    )


def read_plan(flags: Flags) -> str | None:
    """Return the text of the plan in the model directory; None: there is none.

    Raises:
      UserError: it was made for other minutes than those that are given, or the run has begun without one.
    """
    path = os.path.join(flags.model_dir, PLAN_FILE)
    if tf.io.gfile.exists(path):
        text = read_text(path)
        if not re.search(r"^[^#\n]*=", text, re.MULTILINE):
            raise UserError(f"{path} holds no setting: remove it, so that a plan is made again")
        if flags.minutes is not None and minutes_of(text) not in (None, flags.minutes):
            raise UserError(
                f"--minutes={flags.minutes:g}: {path} was made for {minutes_of(text):g}. Leave --minutes out to go on "
                "by it, with --gin_param='train.steps = N' to go on longer, or give another --model_dir"
            )
        return text
    if tf.io.gfile.exists(os.path.join(flags.model_dir, config.CONFIG_FILE)):
        raise UserError(
            f"--minutes={flags.minutes:g} plans a new training, and {flags.model_dir} holds one already: leave it out "
            "to go on, or give another --model_dir"
        )
    return None


def make_plan(
    flags: Flags,
    sources: Sources,
    runtime: Runtime,
    minutes: float | None,
    began: float,
    told: Sequence[str] | None = None,
) -> str:
    """Make a plan, tell it, and return the text of plan.gin.

    Args:
      flags: of the program; its settings are in force and win.
      sources: the images.
      runtime: executes the step, which is measured.
      minutes: that the training may take; None: MINUTES.
      began: when the program did, by time.monotonic().
      told: settings that are told; None: all.

    Raises:
      UserError: the time is too short, or there is nothing to plan for.
    """
    minutes = MINUTES if minutes is None else minutes
    if not len(image_arrays(sources.train).boxes):
        raise UserError(f"--annotations={flags.annotations or flags.data_dir}: no objects, so there is nothing to plan")
    if runtime.described:
        raise UserError(f"--tpu={flags.tpu} describes a TPU that does not exist, whose speed cannot be measured")
    if runtime.processes > 1:
        raise UserError("several processes would plan each for itself: run `retinamask plan` once, then train in all")
    signs_of_life.now("looking at the images")
    found = fingerprint(sources.train, sources.classes, sources.validation)
    machine = _machine(runtime)
    canvas = config.given("InputPipeline.image_size")
    if canvas is not None:
        canvas = InputPipeline(image_size=canvas).largest_canvas
    network = plan_network(found, machine, canvas, config.given("RetinaMask.backbone"))
    given = {line.setting: config.given(line.setting) for line in network.lines}
    given |= {name: config.given(name) for name in ("train.steps", "train.epochs", "train.evaluate_every")}
    config.parse_gin(flags.gin_file, flags.gin_param, planned=network.to_gin(minutes, ()))
    recipe = config.recipe()
    with StopRequest(ends_process=True).listening() as stop:
        stop.at(0, 0, long=True)  # it compiles for a minute, in which Python hears nothing
        step_seconds, first = measure_step(recipe, sources, runtime)
    schedule = plan_schedule(
        minutes,
        Speed(step_seconds, first, time.monotonic() - began),
        images=recipe.pipeline.order_of(sources.train).length,
        validation=found.validation,
        batch_size=recipe.train.batch_on(runtime.replicas),
    )
    plan = (network + schedule).with_given({name: value for name, value in given.items() if _written_out(value)})
    several = f", {runtime.replicas} replicas" if runtime.replicas > 1 else ""
    about = f"{machine.device.upper()}{several}, {machine.memory / 1e9:.0f} GB of memory free"
    log.info("%s", found)
    log.info("%s", f"planned for {minutes:g} minutes on this machine ({about}):\n{plan.told(told)}")
    return plan.to_gin(minutes, (f"The images: {found}.", f"The machine: {about}."))


def _written_out(value: Any) -> bool:
    """Tell whether gin reads a value from what Python shows of it; None: nothing is given."""
    try:
        return value is not None and ast.literal_eval(repr(value)) == value
    except (ValueError, SyntaxError):
        return False


def _machine(runtime: Runtime) -> Machine:
    try:
        installed_file(package_of("efficientnet_lite0"))
        lite_weights = True
    except UserError:
        lite_weights = False
    return Machine(
        device=runtime.platform,
        replicas=runtime.replicas,
        memory=available_memory(),
        lite_weights=lite_weights,
    )
