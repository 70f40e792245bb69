"""Writers killed at any moment: the same command again ends with the bytes of an unbroken run."""

import os
import random
import time

from attack.isolated import Tally
from attack.programs import OUT, WRITERS, Run, Scene
from attack.tries import HANG, LOST, TRACEBACK

ENDED, SAME_BYTES, OTHER_BYTES, REFUSED_AGAIN = (
    "ended before its kill", "same bytes", "other bytes", "the rerun was refused",
)  # fmt: skip


def kill_once(scene: Scene, name: str, seed: str, tally: Tally) -> None:
    """Start a program, kill it at a moment that follows from the seed, run it again and compare."""
    chance, writer = random.Random(seed), WRITERS[name]
    over = bool(writer.older) and chance.random() < 0.5
    scene.prepare(name)
    scene.clear(name if over else None)
    run = scene.start(*writer.command)
    if chance.random() < 0.4:
        moment = f"after {(seconds := chance.uniform(0, scene.seconds[name])):.3f} s"
        lives = _until(run, lambda: time.monotonic() - run.started > seconds)
    else:
        number, delay = chance.randint(1, max(2, 2 * len(scene.whole[name]))), chance.choice((0, 0, 0.002, 0.01))
        moment = f"{delay} s after change {number} of its folder"
        lives = _until(run, _Changes(scene.work / OUT, number).seen)
        if lives and delay:
            end = time.monotonic() + delay
            lives = _until(run, lambda: time.monotonic() > end)
    if not lives:
        tally.add(ENDED, "", run.fault())
        return
    run.kill()
    what = f"{name}, {'over an older output, ' if over else ''}killed {moment} (seed {seed})"
    again = scene.start(*writer.command)
    if not again.wait():
        tally.add(HANG, what, "the rerun does not end")
    elif again.fault():
        tally.add(TRACEBACK, what, again.fault())
    elif again.code:
        tally.add(REFUSED_AGAIN, what, again.said()[-1000:])
    elif changed := scene.changed():
        tally.add(LOST, what, f"changed: {changed}")
    elif differences := scene.differences(name):
        tally.add(OTHER_BYTES, what, "; ".join(differences))
    else:
        tally.add(SAME_BYTES)


class _Changes:
    """Counts how often the names or the sizes in a folder change."""

    def __init__(self, folder, number):
        self.folder, self.left, self.last = folder, number, None

    def seen(self):
        now = _listing(self.folder)
        if self.last is not None and now != self.last:
            self.left -= 1
        self.last = now
        return self.left <= 0


def _listing(folder):
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found.append(entry.name)
                if entry.is_dir(follow_symlinks=False):
                    found += _listing(entry.path)
    except OSError:
        pass
    return found


def _until(run: Run, reached) -> bool:
    """Look again and again until something is reached; return whether the program still runs then."""
    while not run.poll():
        if reached():
            return True
        time.sleep(0.0005)
    return False
