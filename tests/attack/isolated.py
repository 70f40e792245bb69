"""Subjects attacked in forks: one that crashes, hangs or wants all memory is noted, and the next begins after it."""

import collections
import itertools
import json
import os
import resource
import select
import signal
import time

from attack.tries import CRASH, HANG, Target, Try

PATIENCE = 60.0  # seconds that one try may take on a machine that is busy
MEMORY = 6 << 30  # bytes that a fork may take beyond what it begins with
TRIES_A_FORK = 4000


class Tally:
    """What became of the tries of one subject, or of one program, or pair."""

    def __init__(self) -> None:
        """Begin with none."""
        self.counts: collections.Counter = collections.Counter()
        self.faults: list[dict] = []
        self.places = self.tried = 0  # of the flips and cuts that there are

    def add(self, outcome: str, what: str = "", told: str = "") -> None:
        """Count a try; one that there is something to tell of is a fault."""
        self.counts[outcome] += 1
        if told:
            self.faults.append({"outcome": outcome, "try": what, "told": told})


def in_order(target: Target):
    """Yield the tries of a target: two damages, a forgery, and so on; forgeries alone when no damage is left."""
    damages, forgeries = target.damages(), target.forgeries()
    while pair := list(itertools.islice(damages, 2)):
        yield from pair
        yield next(forgeries)
    yield from forgeries


def attack(name, root, seed, seconds) -> Tally:
    """Attack a subject for some seconds."""
    tally, end, done = Tally(), time.monotonic() + seconds, 0
    while time.monotonic() < end:
        before = done
        done = _fork(name, root, seed, done, end, tally)
        if done == before:  # not even laid out
            break
    return tally


def _fork(name, root, seed, skipped, end, tally) -> int:
    """Let a fork make some of the tries; return how many there are now."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _child(name, root, seed, skipped, end, writer)
    os.close(writer)
    lines, begun, done = _lines(reader, pid), None, skipped
    for kind, content in lines:
        if kind == "size":
            tally.places = content
        elif kind == "begin":
            begun = Try(*content)
        else:
            outcome, told = content
            tally.tried += begun.kind != "forge"
            tally.add(outcome, f"{name}:{begun}", told)
            begun, done = None, done + 1
    os.close(reader)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if begun is None and code and done == skipped:
        raise SystemExit(f"{name} could not be laid out; ATTACK_SHOWS=1 shows why")
    if begun is not None:
        outcome = HANG if code == -signal.SIGKILL else CRASH
        tally.add(outcome, f"{name}:{begun}", f"the process ended with {code}")
        done += 1
    return done


def _lines(reader, pid):
    """Yield what a fork tells, and kill it where it tells nothing for too long."""
    rest = b""
    while True:
        if not select.select([reader], [], [], PATIENCE)[0]:
            os.kill(pid, signal.SIGKILL)
        part = os.read(reader, 1 << 16)
        if not part:
            return
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield json.loads(line)


def _child(name, root, seed, skipped, end, writer):
    """Make tries, each told before and after; never returns."""

    def tell(*said):
        os.write(writer, json.dumps(said).encode() + b"\n")

    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        if not os.environ.get("ATTACK_SHOWS"):
            os.dup2(nowhere, 2)
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
        target = Target(name, root, seed)
        tell("size", sum(1 for _ in target.damages()))
        for one in itertools.islice(in_order(target), skipped, skipped + TRIES_A_FORK):
            if time.monotonic() > end:
                break
            tell("begin", one)
            tell("end", target.attempt(one))
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
