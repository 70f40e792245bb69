"""Runs programs one after another, each in a fork of a process that has imported TensorFlow once.

Reads a JSON list [program, argument, ...] from each line of its input and answers with a line
[exit code, standard output, standard error]. The parent never starts TensorFlow's threads.
"""

import json
import os
import runpy
import sys
import tempfile

import tpu_retinamask.config
import tpu_retinamask.tasks.training
import tpu_retinamask.training.debug
import tpu_retinamask.training.loop.outer_loop
import tpu_retinamask.xla.audit  # noqa: F401  # all imported for the children


def run(command):
    """Run one program to its end as `python -m` would."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.argv = command
            runpy.run_module(f"tpu_retinamask.{command[0]}", run_name="__main__", alter_sys=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return [os.waitstatus_to_exitcode(status), *texts]


if __name__ == "__main__":
    for line in iter(sys.stdin.readline, ""):
        print(json.dumps(run(json.loads(line))), flush=True)
