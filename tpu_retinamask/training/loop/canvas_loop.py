"""The loop over steps of several canvases: for each it asks the loop of the canvas that is due."""

from collections.abc import Callable, Sequence

import numpy as np

from tpu_retinamask import signs_of_life
from tpu_retinamask.training.loop.device_loop import Loop, LoopResult


class CanvasLoop:
    """Makes steps that take turns among canvases; see `device_loop.Loop`.

    Each canvas has a loop, its batches and its program; all have the same step, and so the same weights.
    """

    def __init__(self, loops: Sequence[Loop], due: Callable[[int], int]) -> None:
        """Take the loops; none is asked yet.

        Args:
          loops: one a part.
          due: the part of each step, by its number from 0.
        """
        self._loops, self._due, self._made = loops, due, 0
        self._asked: set[int] = set()

    def __call__(self, count: int) -> LoopResult:
        """Make `count` steps.

        Raises:
          BatchError: a batch could not be made.
        """
        found, end = [], self._made + count
        while self._made < end:
            part, run = self._due(self._made), 1
            while self._made + run < end and self._due(self._made + run) == part:
                run += 1
            if part not in self._asked and self._asked:
                signs_of_life.now("the step for another canvas", timed=True)
            self._asked.add(part)
            found.append(self._loops[part](run))
            self._made += run
        metrics = {name: np.concatenate([one.metrics[name] for one in found]) for name in found[0].metrics}
        return LoopResult(metrics, sum(one.waited for one in found))

    def settle(self) -> None:
        """Bring the variables on the host up to date."""
        for part in self._asked:
            self._loops[part].settle()
