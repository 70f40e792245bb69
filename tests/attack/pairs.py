"""Two programs on one folder at once: one is refused by name, or they do not meet; what both wrote is right."""

import itertools
import random
import time

from attack.isolated import Tally
from attack.programs import OUT, WRITERS, Scene
from attack.tries import HANG, LOST, TRACEBACK

BY_NAME, FOR_FILES, BOTH, WRONG, NEITHER = (
    "one refused by name", "one refused for what is there", "both ran", "wrong output", "both were refused",
)  # fmt: skip
PAIRS = list(itertools.combinations_with_replacement(WRITERS, 2))


def meet_once(scene: Scene, pair: tuple[str, str], seed: str, tally: Tally) -> None:
    """Start two programs, the second after a while that follows from the seed, and look at what they leave."""
    chance, names = random.Random(seed), list(pair)
    chance.shuffle(names)
    for name in names:
        scene.prepare(name)
    scene.clear()
    pause = chance.choice((0.0, 0.0, chance.uniform(0, 0.8 * scene.seconds[names[0]])))
    runs = [scene.start(*WRITERS[names[0]].command)]
    time.sleep(pause)
    runs.append(scene.start(*WRITERS[names[1]].command))
    what = f"{names[0]} and {pause:.3f} s later {names[1]} (seed {seed})"
    ended = [run.wait() for run in runs]  # both, whatever the first did
    if not all(ended):
        tally.add(HANG, what, "one does not end")
        return
    if faults := [fault for run in runs if (fault := run.fault())]:
        tally.add(TRACEBACK, what, "\n".join(faults))
        return
    if changed := scene.changed():
        tally.add(LOST, what, f"changed: {changed}")
        return
    good = [name for name, run in zip(names, runs) if run.code == 0]
    refused = [(name, run) for name, run in zip(names, runs) if run.code]
    if wrong := _wrong(scene, good):
        tally.add(WRONG, what, wrong)
    elif not good:
        tally.add(NEITHER, what, "\n".join(run.said()[-500:] for run in runs))
    elif not refused:
        tally.add(BOTH)
    else:
        by_name = any(f" is in use by {name}, process " in refused[0][1].said() for name in WRITERS)
        again = scene.start(*WRITERS[refused[0][0]].command)
        if not again.wait():
            tally.add(HANG, what, "the refused one, run again, does not end")
        elif again.fault():
            tally.add(TRACEBACK, what, again.fault())
        elif wrong := _wrong(scene, [*good, refused[0][0]] if again.code == 0 else good):
            tally.add(WRONG, what, f"after the refused one was run again: {wrong}")
        else:
            tally.add(BY_NAME if by_name else FOR_FILES)


def _wrong(scene: Scene, names) -> str:
    """Return what is wrong with the files that programs have written side by side; one of a name is left right."""
    found, told = scene.files(OUT), []
    for name in names:
        for file, content in scene.whole[name].items():
            right = [content, *(scene.whole[other].get(file) for other in names if other != name)]
            if file not in found or found[file] not in right:
                told.append(f"{name}: {file} {'is missing' if file not in found else 'has other bytes'}")
    return "; ".join(told)
