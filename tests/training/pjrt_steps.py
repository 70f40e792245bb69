r"""Trains a few steps on examples/nuclei, and saves what they gave; run by test_pjrt_steps in processes of its own.

  python pjrt_steps.py OUTPUT.npz --runtime=pjrt --replicas=4 --steps=2 --batch=4 [--gin_param=SETTING ...]

A process is divided into devices, or joins others, before it starts. Saved are each step's metrics ("metric NAME") and
all numbers of the state after the second ("early NAME") and the last ("state NAME"); printed is the memory of the step.
"""

import argparse
import functools
import json
import pathlib
import sys

import keras
import numpy as np

from tpu_retinamask import config
from tpu_retinamask.data.sources.opening import open_sources
from tpu_retinamask.training.runtimes import pjrt_runtime, tensorflow_runtime  # noqa: F401  # they take their seats
from tpu_retinamask.training.runtimes.registry import RUNTIMES

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))

from programs import killed_runs


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("output")
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--gin_param", action="append", default=[])
    arguments = parser.parse_args()
    config.parse_gin([], [*killed_runs.GIN, *arguments.gin_param])
    recipe = config.recipe()
    runtime = RUNTIMES.get(arguments.runtime)(replicas=arguments.replicas)
    sources = open_sources(str(arguments.folder / "train.csv"), str(killed_runs.NUCLEI / "classes.csv"), None, None)
    keras.utils.set_random_seed(0)
    learner = recipe.make_learner(
        runtime.strategy, sources.classes.num_classes, total_steps=100, batch_size=arguments.batch
    )
    make_dataset = functools.partial(recipe.pipeline.train_dataset, sources.train)
    step = runtime.step(learner.make_step(), jit_compile=True)
    loop = runtime.loop(step, runtime.batches(make_dataset, arguments.batch, 0))
    variables = {v.path.split("/", 1)[-1]: v.value for v in learner.model.variables + learner.optimizer.variables}
    for part, of_part in learner.extra_variables.items():
        variables |= {f"{part} {name.split('/', 1)[-1]}": variable for name, variable in of_part.items()}
    metrics, found = [], {}
    for name, steps in ("early", 2), ("state", arguments.steps - 2):
        metrics.append(loop(steps).metrics)
        loop.settle()
        found |= {f"{name} {path}": variable.numpy() for path, variable in variables.items()}
    found |= {f"metric {name}": np.concatenate([some[name] for some in metrics]) for name in metrics[0]}
    np.savez(arguments.output, **found)
    program = getattr(step, "program", None)
    if program is not None:
        # The copies of the state that the replicas of this process hold: equal to the bit.
        shards = [[np.asarray(shard.data) for shard in value.addressable_shards] for value in program.state]
        apart = sum(any(np.any(copy != copies[0]) for copy in copies) for copies in shards)
        state = sum(copies[0].nbytes for copies in shards)
        print(json.dumps({"memory": program.executable.memory, "state": state, "apart": apart}))


if __name__ == "__main__":
    main()
