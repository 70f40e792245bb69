r"""Attacks readers and writers for a while, and says what became of each try.

  PYTHONPATH=tests python -m attack --minutes=60 --folder=/tmp/attack
  PYTHONPATH=tests python -m attack --folder=/tmp/attack --seed=7 --try='csv:train.csv:flip:12'

Two fifths of the time go to damaged and forged files (each subject of `subjects` its share), the rest to kills and to
pairs of programs. `attack.json` and `attack.md` in the folder hold the figures; exits with 1 where something broke. A
damage follows from its name and the seed and is made again by --try; moments of kills depend on the machine too.
"""

import argparse
import itertools
import os
import pathlib
import platform
import random
import re
import sys
import time

# Before TensorFlow is imported: its own words are nobody's here, and machine code need not be good.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")

from attack import report
from attack.isolated import Tally, attack
from attack.kills import kill_once
from attack.pairs import PAIRS, meet_once
from attack.programs import WRITERS, Scene, find_at_once
from attack.subjects import SUBJECTS
from attack.tries import Target, Try

KINDS = ("damage", "kill", "pair")


def main() -> int:
    """Run it."""
    options = _options()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if options.again:
        return _again(folder, options)
    import_everything()
    seed = random.randrange(1 << 31) if options.seed is None else options.seed
    started, said = time.monotonic(), {"seed": seed, "minutes": options.minutes, "python": platform.python_version()}
    said["began"] = time.strftime("%Y-%m-%d %H:%M")
    print(f"seed {seed}", flush=True)
    kinds = options.kinds or list(KINDS)
    left, spent, tallies = options.minutes * 60, 0.0, {}
    if "damage" in kinds:
        share = left * (0.4 if len(kinds) > 1 else 1)
        spent = share
        names = [name for name in SUBJECTS if re.fullmatch(options.only, name)]
        whole = sum(SUBJECTS[name].weight for name in names)
        for name in names:
            seconds = share * SUBJECTS[name].weight / whole
            tallies["damage", name] = tally = attack(name, folder / "subjects", seed, seconds)
            report.say("damage", name, tally)
    if kinds != ["damage"]:
        find_at_once()
        scene = Scene(folder / "scene")
        end = time.monotonic() + left - spent
        chosen = [pair for pair in PAIRS if re.fullmatch(options.only, " and ".join(pair))]
        random.Random(seed).shuffle(chosen)
        jobs = (
            [("kill", name) for name in WRITERS if re.fullmatch(options.only, name)],
            [("pair", pair) for pair in chosen],
        )
        jobs = [_in_turn(some) for some in jobs if some and some[0][0] in kinds]
        for turn in itertools.count() if jobs else ():
            if turn >= len(jobs) and time.monotonic() > end:  # at least one of each kind
                break
            kind, what = next(jobs[turn % len(jobs)])
            name = what if kind == "kill" else " and ".join(what)
            tally = tallies.setdefault((kind, name), Tally())
            (kill_once if kind == "kill" else meet_once)(scene, what, f"{seed}/{turn}", tally)
            report.tell_new(kind, name, tally)
    said["took_minutes"] = round((time.monotonic() - started) / 60, 1)
    return report.write(folder, said, tallies)


def _in_turn(jobs):
    """Yield jobs one after the other, again and again; those with a training, which takes long, each fifth round."""
    for number in itertools.count():
        yield from [job for job in jobs if "train" not in job[1] or number % 5 == 4 or len(jobs) == 1]


def import_everything() -> None:
    """Import for the forks what the programs do; TensorFlow is not started."""
    import tpu_retinamask.config
    import tpu_retinamask.tasks.training
    import tpu_retinamask.training.loop.outer_loop
    import tpu_retinamask.xla.audit  # noqa: F401


def _again(folder, options) -> int:
    """Make one try again, here."""
    name, file, kind, place = options.again.rsplit(":", 3)
    target = Target(name, folder / "again", options.seed or 0)
    outcome, told = target.attempt(Try(file, kind, int(place)))
    print(f"{outcome}\n{told}".strip())
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="for files and figures; its own")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, help="one by chance where not given; it is printed")
    parser.add_argument("--kinds", nargs="*", choices=KINDS, help="all where not given")
    parser.add_argument("--only", default=".*", help="subjects, programs and pairs: a pattern of their whole names")
    parser.add_argument("--try", dest="again", help="SUBJECT:FILE:KIND:PLACE of a fault, made again with its --seed")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
