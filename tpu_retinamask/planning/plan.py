"""A plan: settings, each with its reason, and what it is unsure of; a gin file that can be read and edited."""

import dataclasses
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

WIDTH = 118  # of a comment
# What is told of a plan where a training goes on with it.
TOLD = (
    "InputPipeline.image_size",
    "RetinaMask.backbone",
    "RetinaMask.anchor_sizes",
    "InputPipeline.max_instances",
    "Augmentation.horizontal_flip",
    "Augmentation.rot90",
    "train.batch_size",
    "train.steps",
    "train.epochs",
    "train.evaluate_every",
)
_MINUTES = re.compile(r"^# Planned for ([0-9]+(?:\.[0-9]+)?(?:e\+?[0-9]+)?) minutes")


class Line(NamedTuple):
    """One setting and why it has its value."""

    setting: str
    value: Any
    reason: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """The settings of a training, in the order in which they are told.

    Attributes:
      lines: settings, none twice.
      unsure: what a person who knows the pictures may know better, a sentence each.
    """

    lines: tuple[Line, ...] = ()
    unsure: tuple[str, ...] = ()

    def __add__(self, other: "Plan") -> "Plan":
        """Return both, this one's settings first."""
        return Plan(self.lines + other.lines, self.unsure + other.unsure)

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return the values by the names of the settings."""
        return {line.setting: line.value for line in self.lines}

    def with_given(self, given: Mapping[str, Any]) -> "Plan":
        """Return the plan with the values that somebody else gives in place of its own."""
        lines = []
        for line in self.lines:
            if line.setting == "train.steps" and "train.epochs" in given:
                lines.append(Line("train.epochs", given["train.epochs"], "as given"))
            elif line.setting in given:
                lines.append(Line(line.setting, given[line.setting], "as given"))
            else:
                lines.append(line)
        return Plan(tuple(lines), self.unsure)

    def to_gin(self, minutes: float, heading: Sequence[str]) -> str:
        """Return the text of plan.gin.

        Args:
          minutes: that it is made for.
          heading: paragraphs to begin with.
        """
        text = [f"# Planned for {minutes:g} minutes. Change what you know better: train reads this file."]
        for paragraph in heading:
            text += ["#", *_comment(paragraph)]
        if self.unsure:
            text += ["#", "# Unsure:"]
            for sentence in self.unsure:
                text += _comment(sentence, "#   - ", "#     ")
        for line in self.lines:
            text += ["", *_comment(line.reason), f"{line.setting} = {gin_value(line.value)}"]
        return "\n".join(text) + "\n"

    def told(self, settings: Sequence[str] | None = None) -> str:
        """Return settings and their reasons, a line each, for a terminal.

        Args:
          settings: those that are told; None: all.
        """
        chosen = [line for line in self.lines if settings is None or line.setting in settings]
        texts = [f"{line.setting} = {gin_value(line.value)}" for line in chosen]
        widest = min(64, max(map(len, texts), default=0))
        lines = [f"  {text:<{widest}}  {line.reason}" for text, line in zip(texts, chosen)]
        return "\n".join(lines + [f"  unsure: {sentence}" for sentence in self.unsure])


def minutes_of(text: str) -> float | None:
    """Return for how many minutes the text of a plan.gin was made; None: it does not say."""
    match = _MINUTES.match(text)
    return float(match[1]) if match else None


def gin_value(value: Any) -> str:
    """Return a value as gin reads it: texts that begin with @ are references."""
    return value if isinstance(value, str) and value.startswith("@") else repr(value)


def _comment(text: str, first: str = "# ", later: str = "# ") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=later, break_long_words=False)
