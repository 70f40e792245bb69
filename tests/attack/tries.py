"""One subject under attack: what became of each try."""

import contextlib
import hashlib
import os
import pathlib
import random
import re
import shutil
import traceback
from collections.abc import Iterator
from typing import NamedTuple

from attack.damage import CUT, FLIP, FORGE, damaged, forged
from attack.subjects import SUBJECTS

# What may become of a try, the good ones first.
REFUSED, SAME, OTHER = "refused", "same result", "another valid file"
FAULTS = ACCEPTED, TRACEBACK, UNNAMED, LOST, CRASH, HANG = (
    "accepted damage", "traceback", "refused without a name", "lost a file", "crash", "hang",
)  # fmt: skip

WHOLE = 8192  # bytes of a file of which every place is tried; of larger ones so many places, by chance
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class Try(NamedTuple):
    """A damage to a file of a subject: enough to make it again."""

    file: str
    kind: str
    place: int  # the byte; of a forgery its number, from which it follows with the seed

    def __str__(self) -> str:
        return f"{self.file}:{self.kind}:{self.place}"


class Target:
    """A subject, laid out in a folder of its own."""

    def __init__(self, name: str, root: pathlib.Path, seed: int) -> None:
        """Lay it out and read it whole."""
        self.name, self.seed, self.subject = name, seed, SUBJECTS[name]
        self.folder = root / re.sub(r"\W+", "_", name)
        for left in root.glob(self.folder.name + "*"):
            shutil.rmtree(left)
        self.folder.mkdir(parents=True)
        self.path = self.subject.lay(self.folder)
        self.files = {str(path.relative_to(self.folder)): path.read_bytes() for path in self._there()}
        self.attacked = [file for file in self.files if any(map(pathlib.PurePath(file).match, self.subject.attacked))]
        self.whole = self._read()
        self.restore()

    def damages(self) -> Iterator[Try]:
        """Yield each flip and cut, in an order of chance; where a file is large, of places by chance."""
        chance, found = random.Random(f"{self.seed}/{self.name}"), []
        for file in self.attacked:
            size = len(self.files[file])
            places = range(size) if size <= WHOLE else sorted(chance.sample(range(size), WHOLE))
            found += [Try(file, kind, place) for place in places for kind in (FLIP, CUT)]
        chance.shuffle(found)
        yield from found

    def forgeries(self) -> Iterator[Try]:
        """Yield forgeries without end."""
        number = 0
        while True:
            for file in self.attacked:
                yield Try(file, FORGE, number)
            number += 1

    def attempt(self, one: Try) -> tuple[str, str]:
        """Damage, read, and mend; return (what became of it, what there is to tell)."""
        before = self.files[one.file]
        signed = False  # a forgery whose digests were made to fit
        if one.kind == FORGE:
            content = forged(before, f"{self.seed}/{self.name}/{one}")
            signed = self.subject.sign is not None and one.place % 2 == 1
        else:
            content = damaged(before, one.kind, one.place)
        (self.folder / one.file).write_bytes(content)
        try:
            if signed:
                with contextlib.suppress(ValueError, LookupError, AttributeError, TypeError):  # what cannot be signed
                    self.subject.sign(self.folder)
            return self._judged(one, content == before, signed)
        finally:
            self.restore()

    def _judged(self, one: Try, is_whole: bool, signed: bool) -> tuple[str, str]:
        from tpu_retinamask.errors import UserError, printable

        try:
            found = self._read()
        except (UserError, FileNotFoundError) as error:
            text = printable(str(error))
            if is_whole:
                return ACCEPTED, f"a whole file was refused: {text[:300]}"
            named = any(str(self.folder) in text or os.path.basename(file) in text for file in self.files)
            named = named or (self.subject.named and re.search(self.subject.named, text))
            if not named or _CONTROLS.search(text) or len(text) > 100_000:
                return UNNAMED, text[:300]
            return REFUSED, ""
        except AssertionError as error:
            return (LOST if "lost" in str(error) else ACCEPTED), traceback.format_exc(limit=-2)
        except (Exception, MemoryError):
            return TRACEBACK, traceback.format_exc(limit=-4)
        if found == self.whole:
            return SAME, ""
        if self.subject.guarded and not signed:
            return ACCEPTED, "another result"
        return OTHER, ""

    def _read(self) -> bytes:
        return hashlib.sha256(repr(self.subject.read(self.folder, self.path)).encode()).digest()

    def restore(self) -> None:
        """Put every file back as it was, and remove others."""
        there = {str(path.relative_to(self.folder)): path for path in self._there()}
        for name in there.keys() - self.files.keys():
            there[name].unlink()
        for name, content in self.files.items():
            if name not in there or there[name].read_bytes() != content:
                (self.folder / name).parent.mkdir(exist_ok=True, parents=True)
                (self.folder / name).write_bytes(content)

    def _there(self) -> list[pathlib.Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())
