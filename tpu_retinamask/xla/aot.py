"""Compile lowered programs with the TPU's own compiler, for chips that are only described.

  python -m tpu_retinamask.xla.aot program.mlir --topology=v5e:2x2 --replicas=4 --output=compiled.json

A child process a program: a compile takes minutes and gigabytes, and a compiler that gives up may end its process.
It needs jax and libtpu (the `tpu-check` extra) and no TensorFlow.
"""

import argparse
import dataclasses
import gzip
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tpu_retinamask.errors import UserError
from tpu_retinamask.startup import NO_TPU, expect_no_tpu

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """A TPU generation.

    Attributes:
      topology: default layout to compile for, with the options that libtpu wants beside it.
      memory: bytes of HBM of one core as TensorFlow sees it (a v4 or v5p chip is one core).
      clock: Hz, to turn the compiler's cycles into seconds; published where `clock_is_published`, else assumed.
    """

    topology: str
    memory: int
    clock: float
    options: tuple = ()


# HBM per chip: cloud.google.com/tpu/docs/system-architecture-tpu-vm; v2 and v3 share it between two cores.
# Clocks: arXiv 2304.01433 table 4 (v3 940 MHz, v4 1050 MHz), CACM 63(7) 2020 (v2 700 MHz); of v5e, v5p and v6e
# none is published: 1.5, 1.75 and 1.75 GHz follow from peak FLOP/s and the size of the matrix units, as do 2.2 GHz of
# TPU7x (2307 TFLOP/s of bfloat16 and 192 GiB a chip of two cores; docs.cloud.google.com/tpu/docs/tpu7x).
CHIPS = {
    "v2": Chip("v2:2x2", 8 * GIB, 0.70e9),
    "v3": Chip("v3:2x2", 16 * GIB, 0.94e9),
    "v4": Chip("v4:2x2x1", 32 * GIB, 1.05e9, (("chip_config_name", "megacore"),)),
    "v5e": Chip("v5e:2x2", 16 * GIB, 1.50e9),
    "v5p": Chip("v5p:2x2x1", 95 * GIB, 1.75e9, (("chip_config_name", "megacore"),)),
    "v6e": Chip("v6e:2x2", 32 * GIB, 1.75e9),
    "tpu7x": Chip("tpu7x:2x2x1", 96 * GIB, 2.2e9),
}


def _options(topology: str) -> dict:
    """Return what libtpu wants to hear of a topology beside its name."""
    layout = topology.partition(":")[2]
    alone = {"chips_per_host_bounds": (1, 1, 1)} if layout and set(layout) <= set("1x") else {}  # v5e:1x1
    return dict(chip_of(topology).options) | alone


class CompileError(UserError):
    """The TPU's compiler refused a program; the message is its own."""


class OutOfMemoryError(CompileError):
    """The program needs more memory than the chip has."""


def chip_of(topology: str) -> Chip:
    """Return the chip of a topology such as "v5e:2x2" or "v5e".

    Raises:
      UserError: unknown generation.
    """
    generation = topology.split(":")[0]
    if generation not in CHIPS:
        raise UserError(
            f"--topology={topology}: expected one of {sorted(CHIPS)}, alone or with a layout such as v5e:2x2"
        )
    return CHIPS[generation]


def cache_key(program: bytes, topology: str, replicas: int) -> str:
    """Return the name under which a compile's result is kept: program, chip, compiler and its flags decide it."""
    versions = [importlib.metadata.version(package) for package in ("libtpu", "jax")]
    asked = [topology, _options(topology), replicas, versions, os.environ.get("LIBTPU_INIT_ARGS"), _FORMAT]
    return hashlib.sha256(program + repr(asked).encode()).hexdigest()[:24]


_FORMAT = 1  # of the results; raise it when `compile_program` returns something else


def compile_cached(
    program: bytes,
    topology: str,
    replicas: int,
    cache_dir: Path,
    on_wait: Callable[[float], object] = lambda seconds: None,
    aliases: Sequence[tuple[int, int]] = (),
) -> dict:
    """Return what `compile_program` says, from the cache or from a child process.

    Args:
      program: serialized StableHLO of one replica.
      topology: such as "v5e:2x2".
      replicas: cores that run it.
      cache_dir: folder of earlier results.
      on_wait: called with the seconds waited so far, about once a second.
      aliases: (argument, output) pairs whose memory is shared, as a TPU shares that of a variable.

    Raises:
      OutOfMemoryError: too large for the chip.
      CompileError: refused.
    """
    cache_dir.mkdir(parents=True, exist_ok=True)
    key = cache_key(program + json.dumps(list(aliases)).encode(), topology, replicas)
    result_path, program_path = cache_dir / f"{key}.json", cache_dir / f"{key}.mlir"
    if not result_path.exists():
        program_path.write_bytes(program)
        log_path = cache_dir / f"{key}.log"
        command = [
            sys.executable,
            "-m",
            "tpu_retinamask.xla.aot",
            str(program_path),
            f"--topology={topology}",
            f"--replicas={replicas}",
            f"--output={result_path}",
            f"--aliases={json.dumps(list(aliases))}",
        ]
        started = time.monotonic()
        with (
            open(log_path, "wb") as log,
            subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | NO_TPU) as child,
        ):
            try:
                while child.poll() is None:
                    on_wait(time.monotonic() - started)
                    time.sleep(1)
            finally:
                child.kill()  # if the waiting was interrupted
                program_path.unlink(missing_ok=True)  # another process may have compiled the same
        if not result_path.exists():
            said = log_path.read_text(errors="replace").strip().splitlines()
            raise CompileError(
                f"the compiler ended with {child.returncode} and left no result; its last lines:\n"
                + "\n".join(said[-5:])
            )
        log_path.unlink(missing_ok=True)
    result = json.loads(result_path.read_text())
    result["hlo_path"] = str(_hlo_path(result_path))
    if "refused" in result:
        kind = OutOfMemoryError if result["out_of_memory"] else CompileError
        raise kind(result["refused"])
    return result


def read_hlo(figures: dict) -> str:
    """Return the optimised program of a compile."""
    with gzip.open(figures["hlo_path"], "rt") as file:
        return file.read()


def _hlo_path(result_path: Path) -> Path:
    return result_path.with_suffix(".hlo.gz")


def compile_program(
    program: bytes, topology: str, replicas: int, aliases: Sequence[tuple[int, int]] = ()
) -> tuple[dict, str]:
    """Compile serialized StableHLO for replicas that exchange sums, in this process.

    Args:
      program: serialized StableHLO of one replica.
      topology: such as "v5e:2x2".
      replicas: cores that run it.
      aliases: (argument, output) pairs that share memory.

    Returns:
      (figures, optimised HLO): dict of seconds, argument, output, alias, temporary and peak bytes, flops and
      bytes accessed.
    """
    import jax
    import numpy as np
    from jax.experimental import topologies

    from tpu_retinamask.private import jax_names
    from tpu_retinamask.xla import stablehlo

    del jax
    chip = chip_of(topology)
    name = topology if ":" in topology else chip.topology
    description = topologies.get_topology_desc(platform="tpu", topology_name=name, **_options(topology))
    devices = description.devices[:replicas]
    if len(devices) < replicas:
        raise CompileError(f"topology {name} has {len(devices)} cores, {replicas} are needed")
    module = stablehlo.parse(program, aliases)
    options = jax_names.CompileOptions()
    options.num_replicas, options.num_partitions = replicas, 1
    options.device_assignment = jax_names.DeviceAssignment.create(np.array([[d.id] for d in devices]))
    started = time.monotonic()
    executable = devices[0].client.compile(module, jax_names.DeviceList(tuple(devices)), options)
    seconds = time.monotonic() - started
    memory = executable.get_compiled_memory_stats()
    figures = {
        "topology": name,
        "replicas": replicas,
        "seconds": seconds,
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "alias_bytes": memory.alias_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "code_bytes": memory.generated_code_size_in_bytes,
    }
    figures["peak_bytes"] = (
        figures["argument_bytes"]
        + figures["temporary_bytes"]
        + figures["output_bytes"]
        - figures["alias_bytes"]
        + figures["code_bytes"]
    )
    cost = executable.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    figures |= {"flops": cost.get("flops"), "bytes_accessed": cost.get("bytes accessed")}
    return figures, executable.hlo_modules()[0].to_string()


def main() -> None:
    """Compile one program and write its figures, or the compiler's refusal.

    Whatever else goes wrong, a full disk or a missing package, ends the process without a result: it is no answer.
    """
    import jax

    parser = argparse.ArgumentParser(description="Compile one program for a TPU.")
    parser.add_argument("program")
    parser.add_argument("--topology", required=True)
    parser.add_argument("--replicas", type=int, required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--aliases", default="[]")
    arguments = parser.parse_args()
    output = Path(arguments.output)
    try:
        figures, hlo = compile_program(
            Path(arguments.program).read_bytes(), arguments.topology, arguments.replicas, json.loads(arguments.aliases)
        )
        with gzip.open(_hlo_path(output), "wt") as file:
            file.write(hlo)
    except (jax.errors.JaxRuntimeError, CompileError) as error:
        message = str(error)
        out_of_memory = "RESOURCE_EXHAUSTED" in message or "HbmOom" in message
        figures = {"refused": message, "out_of_memory": out_of_memory, "kind": type(error).__name__}
    temporary = output.with_suffix(".partial")
    temporary.write_text(json.dumps(figures, indent=1))
    temporary.rename(output)


if __name__ == "__main__":
    expect_no_tpu()
    main()
