"""`retinamask NAME ...`: starts a program by its name, and shows what its user did wrong without a traceback."""

import atexit
import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence

from absl import flags as absl_flags

from tpu_retinamask import signs_of_life, startup
from tpu_retinamask.errors import UserError, printable
from tpu_retinamask.programs import command_line, early_checks
from tpu_retinamask.version import __version__

WRONG_FLAGS, WRONG_INPUT = 1, 2  # exit codes; the first is absl's own
INTERRUPTED = 130  # as a shell reports a Ctrl-C


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program that the first argument names and return its exit code.

    Args:
      arguments: name and flags; None: those of the command line.
    """
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("--version", "-V"):
        print(f"tpu_retinamask {__version__}")
        return 0
    if name in ("--help", "-h", "help"):
        print(overview())
        return 0
    if name not in command_line.PROGRAMS:
        print(printable(f"retinamask: no program {name!r}\n\n{overview()}"), file=sys.stderr)
        return WRONG_FLAGS
    try:
        flags, modes = command_line.parse(name, rest)
        _check_modes(name, modes)
    except absl_flags.Error as error:
        print(printable(f"error: {error}\nSee `retinamask {name} --help`."), file=sys.stderr)
        return WRONG_FLAGS
    if flags.help:
        print(command_line.help_text(name, flags))
        return 0
    return run_program(name, flags, modes)


def process(arguments: Sequence[str] | None = None) -> int:
    """Run a program as `main` does, in a process that is its own and ends with it.

    Taken apart in the usual way, TensorFlow waits for its input threads for up to a minute, when everything is written.
    """
    _open_standard_streams()
    code: list[int] = []
    # Registered before the libraries are imported, so that it is called after what they have to do at the end.
    atexit.register(_end, code)
    code.append(main(arguments))
    return code[0]


def _open_standard_streams() -> None:
    """Open those that a shell has closed (`2>&-`) to nowhere, lest a file that is opened take their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
            setattr(sys, name, open(number, "r" if number == 0 else "w"))  # noqa: SIM115  # of the process


def _end(code: list[int]) -> None:
    if code:  # else an error is on its way to the terminal
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except BrokenPipeError:  # nobody reads any more, as of `| head`
            pass
        except OSError as error:
            os.write(2, f"error: what was to be shown could not be written: {error.strerror}\n".encode())
            code[0] = code[0] or WRONG_INPUT
        os._exit(code[0])


def run_program(name: str, flags: command_line.Flags, modes: Sequence[str] = ()) -> int:
    """Import a program and run it with its flags; return its exit code."""
    if name == "tpu_check" or str(getattr(flags, "tpu", None)).startswith("fake:"):
        startup.expect_no_tpu()
    with signs_of_life.shown(), _lines_on_the_terminal():
        try:
            early_checks.check(name, flags)
            signs_of_life.now("starting TensorFlow")
            startup.import_tensorflow_quietly()
            program = importlib.import_module(f"tpu_retinamask.programs.{name}")
            signs_of_life.now("working")
            return program.run(flags, *modes) or 0
        except KeyboardInterrupt:
            print("stopped by Ctrl-C; run the same command to begin again", file=sys.stderr)
            return INTERRUPTED
        except (UserError, FileNotFoundError) as error:
            if flags.traceback:
                raise
            message = str(error).split("\n  In call to configurable", maxsplit=1)[0]  # gin's own traceback
            print(printable(f"error: {message}"), file=sys.stderr)
            return WRONG_INPUT


def overview() -> str:
    """Return the programs, one a line."""
    lines = ["usage: retinamask PROGRAM --flag=value ...   (retinamask PROGRAM --help tells its flags)", ""]
    for name in command_line.PROGRAMS:
        lines.append(f"  {name:<16}{command_line.docstring(name).splitlines()[0]}")
    return "\n".join(lines)


def _check_modes(name: str, given: Sequence[str]) -> None:
    if name in command_line.TAKES_FILES:
        return
    known = command_line.MODES.get(name, ())
    unknown = [word for word in given if word not in known] or list(given)[1:]
    if unknown:
        hint = f"one of {known} and flags" if known else "every option is a flag"
        raise absl_flags.Error(f"unknown arguments: {unknown}; {hint}, --name=value")


@contextlib.contextmanager
def _lines_on_the_terminal() -> Iterator[None]:
    """Show the lines of the project's own loggers; libraries stay at warnings."""
    log = logging.getLogger("tpu_retinamask")
    handler = signs_of_life.TerminalHandler()
    before = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.level, log.propagate = before


if __name__ == "__main__":
    sys.exit(process())
