"""How long a training is, and what else it does in its time: from the speed of one real step."""

import dataclasses
import math

from tpu_retinamask.errors import UserError
from tpu_retinamask.planning.plan import Line, Plan

USED = 0.95  # of the minutes: the rest is for what no measurement foresees
MOST_EPOCHS = 200  # what was not learnt by then is not learnt by more
FEW_EPOCHS = 6  # below which a plan says that time is short
FEWEST_STEPS = 50  # that teach anything
MOST_EVALUATIONS, SHARE_OF_EVALUATIONS = 4, 0.15  # how often at most, and of the time
SCORED = 0.5  # what scoring an image takes of the time of training on it
AVERAGED = 1 / 16  # of the training that the average of the weights looks back on: what the demo was tuned with


@dataclasses.dataclass(frozen=True)
class Speed:
    """What was measured of a step.

    Attributes:
      step_seconds: of one step.
      first_seconds: of the first, which compiles, and is made once more.
      spent_seconds: since the program began.
    """

    step_seconds: float
    first_seconds: float
    spent_seconds: float


def plan_schedule(minutes: float, speed: Speed, *, images: int, validation: int, batch_size: int) -> Plan:
    """Return the settings that follow from the time.

    Args:
      minutes: that the training may take, from the call of the program to its end.
      speed: of a step with these settings.
      images: to train on.
      validation: images to score.
      batch_size: images a step.

    Raises:
      UserError: the time is too short for a training.
    """
    lost = speed.spent_seconds + speed.first_seconds + (SCORED * speed.first_seconds if validation else 0)
    seconds = 60 * minutes * USED - lost
    evaluation = validation * SCORED * speed.step_seconds / batch_size
    evaluations = 0
    if validation:
        evaluations = int(min(MOST_EVALUATIONS, max(1, SHARE_OF_EVALUATIONS * seconds // max(evaluation, 1e-3))))
    steps = int((seconds - evaluations * evaluation) / speed.step_seconds)
    if steps < FEWEST_STEPS:
        needed = (FEWEST_STEPS * speed.step_seconds + lost + evaluations * evaluation) / (60 * USED)
        raise UserError(
            f"--minutes={minutes:g}: a step takes {speed.step_seconds:.1f} s here and starting {lost:.0f} s, so "
            f"{max(steps, 0)} steps are left, of which nothing is learnt; give --minutes={math.ceil(needed)} or more"
        )
    most = max(FEWEST_STEPS * 10, math.ceil(MOST_EPOCHS * images / batch_size))
    steps, ample = min(steps, most), steps > most
    epochs = steps * batch_size / images
    reason = f"{epochs:.0f} epochs; a step takes {speed.step_seconds:.2f} s here, starting {lost:.0f} s"
    if ample:
        reason = f"{MOST_EPOCHS} epochs, beyond which little is learnt; the time would allow more"
    average = round(min(0.9998, max(0.9, 1 - 1 / (AVERAGED * steps))), 4)
    lines = [
        Line("train.steps", steps, reason),
        Line("train.average_decay", average, "scored, and predicted with, is the average of the last sixteenth"),
    ]
    if validation:
        every = math.ceil(steps / evaluations)
        lines.append(Line("train.evaluate_every", every, f"{evaluations} times, about {evaluation:.0f} s each"))
    unsure = []
    if epochs < FEW_EPOCHS:
        unsure.append(f"each picture is seen {epochs:.1f} times: more minutes would teach more")
    if not validation:
        unsure.append("no image is scored: give --val_annotations, or --val_share=0.2, to see how good it becomes")
    return Plan(tuple(lines), tuple(unsure))
