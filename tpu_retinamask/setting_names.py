"""Settings by their names as people type them: what was meant by one that is none, and the flag that sets it."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

from tpu_retinamask.errors import UserError, listed

# gin's `NAME = VALUE` without a dot in the name: a macro, which some other line may use as %NAME.
_BARE = re.compile(r"^\s*(\w+)\s*=\s*(.*?)\s*$", re.DOTALL)
# gin's words for a setting that a configurable lacks, and for a configurable that there is not.
_NO_SETTING = re.compile(r"Configurable '(?:.*\.)?(\w+)' doesn't have a parameter named '(\w+)'")
_NO_OWNER = re.compile(r"No configurable matching '(?:.*[./])?(\w+)'")
FIRST = "source"  # whose settings hold for every program; others of the same names are former ones


def flag(setting: str, value: object) -> str:
    """Return the whole flag that gives a setting a value, ready to be pasted into a shell.

    Args:
      setting: "source.on_bad_record".
      value: of it; text of a value, such as 'skip' in its quotes, is taken as it is.
    """
    return f'--gin_param="{setting}={value}"'


def homes(name: str, known: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the settings that have a name, OWNER.NAME; where every program has it, that one alone.

    Args:
      name: without its owner.
      known: owner -> names of its settings.
    """
    if name in known.get(FIRST, ()):
        return [f"{FIRST}.{name}"]
    return [f"{owner}.{name}" for owner, names in known.items() if name in names]


def refuse_bare_names(params: Sequence[str], texts: Iterable[str], known: Mapping[str, Iterable[str]]) -> None:
    """Refuse settings without their owner, which gin takes for macros and which would then change nothing.

    Args:
      params: single settings, as `--gin_param` gives them.
      texts: all that gin has read; a macro that is used in one of them, as %NAME, is one.
      known: owner -> names of its settings.

    Raises:
      UserError: a name that nothing uses; gives the flags that it may be meant as.
    """
    read = "\n".join([*texts, *params])
    for param in params:
        bare = _BARE.match(param)
        if bare is None or re.search(rf"%{bare[1]}\b", read):
            continue
        name, value = bare[1], bare[2]
        meant = homes(name, known) or _near(name, known)
        hint = f"\nwrite one of\n{listed(flag(one, value) for one in meant)}" if len(meant) > 1 else ""
        hint = f": write {flag(meant[0], value)}" if len(meant) == 1 else hint
        raise UserError(
            f'--gin_param="{param.strip()}" sets nothing: {name} is no setting, as one has its owner before a dot, and '
            f"no %{name} uses it as a macro{hint}"
        )


def advice(message: str, known: Mapping[str, Iterable[str]]) -> str:
    """Return what to write in place of a name that gin did not know, to be added to gin's words; "" for others.

    Args:
      message: gin's.
      known: owner -> names of its settings.
    """
    if missing := _NO_SETTING.search(message):
        owner, name = missing.groups()
        own = list(known.get(owner, ()))
        near = [f"{owner}.{one}" for one in difflib.get_close_matches(name, own, n=2)]
        meant = homes(name, known) or near or _near(name, known)
        return f"; did you mean {' or '.join(meant[:4])}?" if meant else f"; its settings are {', '.join(own)}"
    if missing := _NO_OWNER.search(message):
        owners = difflib.get_close_matches(missing[1], list(known), n=1)
        return f"; did you mean {owners[0]}?" if owners else f"; there are {', '.join(known)}"
    return ""


def _near(name: str, known: Mapping[str, Iterable[str]]) -> list[str]:
    every = sorted({one for names in known.values() for one in names})
    return [setting for one in difflib.get_close_matches(name, every, n=2) for setting in homes(one, known)]
