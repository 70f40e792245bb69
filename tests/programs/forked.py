"""Runs programs one after another, each in a fork of a process that has imported TensorFlow once.

Reads a JSON list [folder, program, argument, ...] from each line of its input, runs the program in that folder and
answers with a line [exit code, standard output, standard error]. The parent never starts TensorFlow's threads.
"""

import gc
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


def _in_the_child(folder, command):
    """Run a program as `python -m` would where one stands in the folder; return its exit code."""
    os.chdir(folder)
    sys.path[0] = folder
    sys.argv = command
    try:
        runpy.run_module(f"tpu_retinamask.{command[0]}", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def run(folder, command):
    """Run one program to its end."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            code = _in_the_child(folder, command)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)  # to take TensorFlow down piece by piece would last longer than many a program
        _, status = os.waitpid(child, 0)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return [os.waitstatus_to_exitcode(status), *texts]


if __name__ == "__main__":
    gc.freeze()  # or a child's collector would copy every page of the parent
    for line in iter(sys.stdin.readline, ""):
        where, *program_and_flags = json.loads(line)
        print(json.dumps(run(where, program_and_flags)), flush=True)
