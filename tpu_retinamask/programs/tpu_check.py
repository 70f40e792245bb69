r"""Ask the TPU's compiler about a training step, on a machine that has no TPU.

  python -m tpu_retinamask.tpu_check --gin_file=run/tpu_v3_8.gin --topology=v3 --topology=v5e:2x2

The step that train would run (forward, losses, backward, sums over cores, update) is traced under a TPUStrategy,
lowered with the TPU's kernels and compiled by libtpu for each chip. Needs an environment of its own, which
`make tpu-check` builds; a compile takes minutes, and is kept for the next time. With --lowering=host it is the program
of `train --runtime=pjrt`, whose environment, the [pjrt-tpu] extra, is smaller and whose compiler knows TPU7x.
"""

import importlib.util
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import gin
import keras
import tensorflow as tf

from tpu_retinamask import config
from tpu_retinamask.errors import UserError
from tpu_retinamask.files import write_atomically
from tpu_retinamask.holding import held_folder
from tpu_retinamask.private.tensorflow_names import ReplicasOfOneProgram
from tpu_retinamask.programs.command_line import Flags
from tpu_retinamask.programs.own_settings import checked
from tpu_retinamask.training.devices import described_tpu, placement
from tpu_retinamask.xla import aot, audit, cost, lower, purify, report
from tpu_retinamask.xla.tracing import trace_replica

log = logging.getLogger(__name__)

GENERATIONS = ("v2", "v3", "v4", "v5e", "v5p", "v6e")  # tpu7x wants a newer compiler than a TPU's kernels bring
LOWERINGS = ("tpu", "host")
USABLE = 0.97  # share of a chip's memory that a program may take; the runtime keeps the rest


@gin.configurable
@checked(replicas=(1, None), batch_per_core=(1, None), num_classes=(1, None))
def tpu_check(
    topologies: Sequence[str],
    cache_dir: str,
    *,
    replicas: int = 4,
    batch_per_core: int | None = None,
    num_classes: int = 80,
    lowering: str | None = None,
    find_largest_batch: bool = False,
    on_row: Callable[[list[dict]], object] = lambda rows: None,
) -> list[dict]:
    """Lower the training step, compile it for each topology and return what was learnt.

    Args:
      topologies: such as "v5e" or "v5e:2x2".
      cache_dir: compiles are kept here, named by program, chip and compiler.
      replicas: cores that exchange gradients.
      batch_per_core: images a core; None: train.batch_size shared by the replicas.
      num_classes: C.
      lowering: one of LOWERINGS; None: "tpu" where this TensorFlow has a TPU's kernels, else "host".
      find_largest_batch: fit the memory from two batches and confirm the largest by compiling it: two compiles more
        for each topology.
      on_row: called with the list so far after each topology, whose compiles took minutes.

    Returns:
      A dict a topology, see `report` for its keys; one for all where the step is refused before any compiler sees it,
      because it holds a forbidden operation or one without a kernel on a TPU.

    Raises:
      UserError: a topology of no known generation; this TensorFlow is not the TPU build; there is no compiler.
    """
    for topology in topologies:
        aot.chip_of(topology)
    if lowering not in (None, *LOWERINGS):
        raise UserError(f"--lowering={lowering}: expected one of {', '.join(LOWERINGS)}")
    _require_compiler()
    if lowering != "host":
        described_tpu.make_logical_cpus(replicas)  # to ask for kernels starts TensorFlow, which fixes its devices
    has_kernels = lowering != "host" and lower.has_tpu_kernels()
    if lowering == "tpu" and not has_kernels:
        raise UserError(
            "--lowering=tpu: this TensorFlow holds no TPU kernels. Install the [tpu-check] extra into an environment "
            "of its own, as `make tpu-check` does, or lower as --runtime=pjrt does: --lowering=host"
        )
    programs = Programs(replicas, num_classes, "tpu" if has_kernels else "host")
    if batch_per_core is None:
        batch_per_core = placement.replica_batch_size(programs.strategy, programs.recipe.train.batch_on(replicas))
    try:
        log.info("traced, audited and lowered: %s", programs.describe(batch_per_core))
    except (audit.ForbiddenOpError, lower.LoweringError) as error:
        return [
            {
                "topology": "all",
                "replicas": replicas,
                "batch_per_core": batch_per_core,
                "lowered": "refused",
                "compiled": "",
                "reason": str(error),
            }
        ]
    rows = []
    for topology in topologies:
        row = check_topology(programs, topology, batch_per_core, Path(cache_dir))
        if find_largest_batch and row.get("fits"):
            row |= largest_batch(programs, topology, row, Path(cache_dir))
        rows.append(row)
        on_row(rows)
    return rows


class Programs:
    """The training step of the configuration, lowered for any batch."""

    def __init__(self, replicas: int, num_classes: int, lowering: str = "tpu") -> None:
        """Build the model and its step, as `train` on a TPU would.

        Args:
          replicas: cores.
          num_classes: C.
          lowering: "tpu": under a TPUStrategy over cores that are only described; "host": as `--runtime=pjrt` does.
        """
        if lowering == "tpu":
            sides = (2, replicas // 2) if replicas % 2 == 0 else (1, replicas)
            self.strategy = placement.make_strategy(f"fake:{sides[0]}x{sides[1]}")
        else:
            self.strategy = ReplicasOfOneProgram(replicas) if replicas > 1 else tf.distribute.get_strategy()
        self.lowering = lowering
        self.recipe = config.recipe()
        self.pipeline = self.recipe.pipeline.largest
        self.replicas, self.num_classes = replicas, num_classes
        keras.utils.set_random_seed(0)
        self.learner = self.recipe.make_learner(
            self.strategy, num_classes, total_steps=1000, batch_size=self.recipe.train.batch_on(replicas)
        )
        self.model = self.learner.model
        self.step = self.learner.make_step()
        if lowering == "tpu":
            self.step = tf.function(
                placement.distribute_step(self.strategy, self.step, jit_compile=True), autograph=False
            )
        self._lowered = {}

    def lowered(self, batch_per_core: int) -> tuple[bytes, list]:
        """Return the StableHLO of one core and the pairs of arguments and outputs that share memory."""
        if batch_per_core not in self._lowered:
            spec = self.pipeline.batch_spec(batch_per_core)
            if self.lowering == "host":
                traced = trace_replica(self.step, [spec], self.strategy, "tpu")
                make_pure, lower_it = purify.pure_function, lower.lower_on_host
            else:
                traced = self.step.get_concrete_function(spec)
                make_pure, lower_it = purify.per_core_function, lower.lower_for_tpu
            audit.check(traced)
            pure = make_pure(traced)
            self._lowered[batch_per_core] = lower_it(pure), pure.aliases
        return self._lowered[batch_per_core]

    def describe(self, batch_per_core: int) -> str:
        """Say in one line what is compiled."""
        program, aliases = self.lowered(batch_per_core)
        height, width = self.pipeline.largest_canvas
        return (
            f"{type(self.model.backbone).__name__}, {self.model.count_params() / 1e6:.1f} M parameters, "
            f"{self.num_classes} classes, {batch_per_core} x {height} x {width} a core, "
            f"{self.model.compute_type.name}, {self.replicas} replicas; {len(program) / 1e6:.1f} MB of StableHLO by "
            f"{'a TPU' if self.lowering == 'tpu' else 'the host'}'s kernels, "
            f"{len(aliases)} variables"
        )


def check_topology(programs: Programs, topology: str, batch_per_core: int, cache_dir: Path) -> dict:
    """Compile the step for one topology and return its row."""
    program, aliases = programs.lowered(batch_per_core)
    chip = aot.chip_of(topology)
    row = {
        "topology": topology if ":" in topology else chip.topology,
        "replicas": programs.replicas,
        "batch_per_core": batch_per_core,
        "image_size": list(programs.pipeline.largest_canvas),
        "lowered": "yes",
        "hbm_bytes": chip.memory,
        "clock_hz": chip.clock,
    }
    label = f"{row['topology']}, {batch_per_core} a core"
    try:
        figures = aot.compile_cached(program, row["topology"], programs.replicas, cache_dir, _progress(label), aliases)
    except aot.CompileError as error:
        log.info("%s: refused", label)
        reason = "out of memory" if isinstance(error, aot.OutOfMemoryError) else "refused"
        return row | {"compiled": reason, "reason": str(error)}
    log.info("%s: compiled in %.0f s", label, figures["seconds"])
    fits = figures["peak_bytes"] <= USABLE * chip.memory  # the compiler itself counts temporaries only
    return row | {"compiled": "yes", "fits": fits} | figures | cost.estimate(aot.read_hlo(figures))


def largest_batch(programs: Programs, topology: str, row: dict, cache_dir: Path) -> dict:
    """Return the largest batch a core that fits: a line through two compiles, and a third that confirms."""
    parts = programs.recipe.train.accumulate_steps  # a batch must divide into them

    def divisible(images):
        return max(parts, images // parts * parts)

    first = row["batch_per_core"]
    second = divisible(first * 2 if row["peak_bytes"] * 2 < USABLE * row["hbm_bytes"] else first // 2)
    other = check_topology(programs, topology, second, cache_dir)
    if not other.get("fits") or second == first:
        return {"largest_batch": min(first, second), "largest_batch_confirmed": second == first}
    slope = (other["peak_bytes"] - row["peak_bytes"]) / (second - first)
    fixed = row["peak_bytes"] - slope * first
    largest = divisible(math.floor((USABLE * row["hbm_bytes"] - fixed) / max(1.0, slope)))
    confirmed = largest in (first, second)
    if not confirmed:
        last = check_topology(programs, topology, largest, cache_dir)
        confirmed = last.get("fits", False)
    return {
        "largest_batch": largest,
        "largest_batch_confirmed": confirmed,
        "bytes_per_image": slope,
        "fixed_bytes": fixed,
    }


def _progress(label: str) -> Callable[[float], None]:
    """Return a function that shows the seconds waited: in place on a terminal, else a line a minute."""
    said = [-1]

    def show(seconds):
        if sys.stderr.isatty():
            print(f"\r{label}: compiling, {seconds:.0f} s ", end="", file=sys.stderr, flush=True)
        elif int(seconds // 60) > said[0]:
            said[0] = int(seconds // 60)
            log.info("%s: compiling, %.0f s", label, seconds)

    return show


def _require_compiler() -> None:
    for package in ("jax", "libtpu"):
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"tpu_check needs {package}, which is not installed: the [tpu-check] extra brings it to an environment "
                "of its own, as `make tpu-check` does, or [pjrt-tpu] for --lowering=host"
            )


def run(flags: Flags) -> int:
    """Run the program; its code is 1 where a topology refuses the step or lacks the memory."""
    config.parse_gin(flags.gin_file, flags.gin_param)
    output = os.path.join(flags.output_dir, "report.json")
    with held_folder(flags.output_dir, "tpu_check", "--output_dir"):
        rows = tpu_check(
            flags.topology or GENERATIONS,
            os.path.expanduser(flags.cache_dir),
            lowering=flags.lowering,
            on_row=lambda rows: write_atomically(output, json.dumps(rows, indent=1)),
        )
        print(report.format_report(rows), flush=True)
        write_atomically(output, json.dumps(rows, indent=1))  # of a refusal, too
    log.info("wrote %s", output)
    return 0 if all(row.get("fits") for row in rows) else 1
