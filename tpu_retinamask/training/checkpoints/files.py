"""Checkpoints as files: whole or absent, verified before they are read, the newest kept.

A checkpoint `ckpt-STEP` is TensorFlow's index and data files and, written last, `ckpt-STEP.manifest.json` with the size
and digest of each (`manifest`): without it the save never ended, and a file that differs from it is damaged. All goes
through tf.io.gfile, so that a bucket (gs://) is a directory like any other.
"""

import hashlib
import logging
import os
import re
from typing import NamedTuple

import tensorflow as tf

from tpu_retinamask.errors import UserError
from tpu_retinamask.file_kinds import refuse_no_file
from tpu_retinamask.files import WriteError, force, list_folder, read_if_there, reason_of
from tpu_retinamask.training.checkpoints.manifest import MANIFEST, is_part, read_manifest, write_manifest

log = logging.getLogger(__name__)

NAME = re.compile(r"ckpt-(0|[1-9]\d*)[._].*", re.ASCII)
POINTER = "checkpoint"  # names the newest, for tf.train.latest_checkpoint
LONGEST_POINTER = 1 << 20
CHUNK = 1 << 24  # bytes read at once
# The lines of a pointer: those of ours, and two more that TensorFlow's manager writes.
_POINTED = re.compile(
    r'(?:model_checkpoint_path|all_model_checkpoint_paths): "(?P<path>.*)"'
    r"|(?:all_model_checkpoint_timestamps|last_preserved_timestamp): [0-9.e+]+"
)


class SaveError(UserError):
    """A checkpoint could not be written; those before it are kept."""


class DamagedCheckpointError(UserError):
    """There are checkpoints, and none of them is what was written."""


class SavedCheckpoint(NamedTuple):
    """A checkpoint found intact."""

    path: str  # prefix of its files
    step: int
    values: dict[str, float]  # what was noted with it: the learning rate, a score


class CheckpointFiles:
    """The checkpoints of one directory."""

    def __init__(self, directory: str, keep: int = 3) -> None:
        """Attach to a directory, which `write` creates.

        Args:
          directory: local or gs://.
          keep: newest checkpoints kept, the one just written among them.
        """
        self.directory, self.keep = directory, keep
        self._damaged = set()  # steps passed over, removed with the next that is written
        self._told = False  # that the pointer is damaged

    def write(self, checkpoint: tf.train.Checkpoint, step: int, values: dict | None = None) -> str:
        """Write a checkpoint, then remove those that are too many, damaged or unfinished; return its path.

        Args:
          checkpoint: what is saved.
          step: names it; one of the same step is replaced.
          values: numbers noted with it.

        Raises:
          SaveError: it could not be written. No other checkpoint is touched.
        """
        path = self.path(step)
        finished = self._finished()
        try:
            tf.io.gfile.makedirs(self.directory)
            if tf.io.gfile.exists(path + MANIFEST):
                tf.io.gfile.remove(path + MANIFEST)
            checkpoint.write(path)
            files = {
                name: _describe(os.path.join(self.directory, name))
                for name in sorted(self._steps()[step])
                if is_part(f"ckpt-{step}", name)
            }
            for name in files:  # before older ones go
                force(os.path.join(self.directory, name))
            write_manifest(path, step, values or {}, files)
        except (tf.errors.OpError, OSError, WriteError) as error:
            self._remove([step])
            raise SaveError(f"checkpoint {path} could not be saved: {reason_of(error)}") from error
        others = sorted(finished - self._damaged - {step}, reverse=True)[: max(0, self.keep - 1)]
        kept = sorted([*others, step])  # the one just written in any case: a best one may be of an earlier step
        self._damaged.clear()
        self._point(step, kept)
        self._remove([other for other in self._steps() if other not in kept])
        return path

    def newest(self) -> SavedCheckpoint | None:
        """Return the newest checkpoint that is intact, after a word on each newer one that is not.

        Returns:
          None if no save has ever ended.

        Raises:
          DamagedCheckpointError: there are checkpoints, all of them damaged.
        """
        finished, reasons = self._finished(), []
        for step in sorted(self._steps(), reverse=True):
            if step not in finished:
                log.warning("%s was not saved to its end and is passed over", self.path(step))
                continue
            reason, values = self._examine(step)
            if reason is None:
                return SavedCheckpoint(self.path(step), step, values)
            log.warning("%s is damaged and passed over: %s", self.path(step), reason)
            reasons.append(f"  ckpt-{step}: {reason}")
            self._damaged.add(step)
        if reasons:
            raise DamagedCheckpointError(
                f"{self.directory} holds no intact checkpoint:\n"
                + "\n".join(reasons)
                + "\nPut a copy in their place, or give another --model_dir to start anew."
            )
        return None

    def last_noted(self) -> tuple[int, dict] | None:
        """Return the step of the newest checkpoint whose save ended and what was noted with it, its files unread."""
        step = max(self._finished(), default=None)
        if step is None:
            return None
        try:
            return step, read_manifest(self.path(step), step).values
        except (FileNotFoundError, UserError):  # `newest` says what is wrong with it
            return step, {}

    def at(self, step: int) -> SavedCheckpoint:
        """Return the checkpoint of a step.

        Raises:
          UserError: there is none, or it is damaged.
        """
        if step not in self._finished():
            raise UserError(
                f"{self.directory} holds no checkpoint of step {step}, but those of the steps "
                f"{sorted(self._finished())}"
            )
        reason, values = self._examine(step)
        if reason is not None:
            raise DamagedCheckpointError(f"{self.path(step)} is damaged: {reason}")
        return SavedCheckpoint(self.path(step), step, values)

    def holds(self, step: int) -> bool:
        """Tell whether the save of a step ended."""
        return step in self._finished()

    def path(self, step: int) -> str:
        """Return the prefix of the files of a step."""
        return os.path.join(self.directory, f"ckpt-{step}")

    def _steps(self) -> dict:
        """Return {step: names of its files}, unfinished ones included."""
        if not tf.io.gfile.isdir(self.directory):
            return {}
        found = {}
        for name in list_folder(self.directory):
            match = NAME.fullmatch(name.rstrip("/"))
            if match:
                found.setdefault(int(match[1]), []).append(name.rstrip("/"))
        return found

    def _finished(self) -> set:
        """Return the steps whose save ended: those with a manifest, or written by a TensorFlow manager before."""
        steps = self._steps()
        finished = {step for step, names in steps.items() if f"ckpt-{step}{MANIFEST}" in names}
        without = steps.keys() - finished
        pointed = self._pointed({f"ckpt-{step}" for step in steps}) if without else set()
        if pointed is None:  # nothing tells which of them are whole but they themselves
            return finished | {step for step in without if f"ckpt-{step}.index" in steps[step]}
        return finished | {step for step in without if f"ckpt-{step}" in pointed}

    def _pointed(self, there: set[str]) -> set[str] | None:
        """Return the names of the checkpoints that the pointer lists; None: it is damaged, or lists others."""
        path = os.path.join(self.directory, POINTER)
        try:
            lines = (read_if_there(path, LONGEST_POINTER) or b"").decode("ascii", "replace").splitlines()
            found = [_POINTED.fullmatch(line) for line in lines]
            pointed = {os.path.basename(line["path"]) for line in found if line and line["path"]}
            if all(found) and pointed <= there:
                return pointed
            reason = "it names what is not there"
        except UserError as error:
            reason = str(error)
        if not self._told:
            log.warning("%s is damaged and passed over: %s", path, reason)
        self._told = True
        return None

    def _examine(self, step: int):
        """Return (what is wrong or None, noted values) of a finished checkpoint."""
        path = self.path(step)
        try:
            for name in self._steps()[step]:
                if is_part(f"ckpt-{step}", name):
                    refuse_no_file(os.path.join(self.directory, name))
            if not tf.io.gfile.exists(path + MANIFEST):
                reader = tf.compat.v1.train.NewCheckpointReader(path)  # it checks a CRC of each tensor
                for name in reader.get_variable_to_shape_map():
                    reader.get_tensor(name)
                return None, {}
            manifest = read_manifest(path, step)
            for name, expected in manifest.files.items():
                file = os.path.join(self.directory, name)
                if not tf.io.gfile.exists(file):
                    return f"{name} is missing", {}
                size = tf.io.gfile.stat(file).length
                if size != expected["bytes"]:
                    return f"{name} has {size} bytes, {expected['bytes']} were written", {}
                if _describe(file) != expected:
                    return f"{name} does not hold what was written", {}
            return None, manifest.values
        except (tf.errors.OpError, OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
            return reason_of(error), {}

    def _point(self, step: int, kept):
        lines = [f'model_checkpoint_path: "ckpt-{step}"', *(f'all_model_checkpoint_paths: "ckpt-{k}"' for k in kept)]
        pointer = os.path.join(self.directory, POINTER)
        try:
            with tf.io.gfile.GFile(f"{pointer}.tmp", "w") as file:
                file.write("\n".join(lines) + "\n")
            tf.io.gfile.rename(f"{pointer}.tmp", pointer, overwrite=True)
        except (tf.errors.OpError, OSError) as error:  # we can do without
            log.warning("%s could not be written: %s", pointer, reason_of(error))

    def _remove(self, steps):
        """Remove all files of some steps, the manifest first; what cannot be removed is told."""
        found = self._steps()
        for step in steps:
            for name in sorted(found.get(step, ()), key=lambda name: not name.endswith(MANIFEST)):
                path = os.path.join(self.directory, name)
                try:
                    (tf.io.gfile.rmtree if tf.io.gfile.isdir(path) else tf.io.gfile.remove)(path)
                except (tf.errors.OpError, OSError) as error:
                    log.warning("%s could not be removed: %s", path, reason_of(error))


def digests(saved: SavedCheckpoint) -> dict[str, str]:
    """Return the SHA-256 of each file of an intact checkpoint, by name."""
    path = saved.path
    if tf.io.gfile.exists(path + MANIFEST):  # compared with the files when the checkpoint was found intact
        return {name: entry["sha256"] for name, entry in read_manifest(path, saved.step).files.items()}
    own = os.path.basename(path)
    files = {os.path.basename(name): name for name in sorted(tf.io.gfile.glob(f"{path}.*"))}
    return {name: _describe(file)["sha256"] for name, file in files.items() if is_part(own, name)}


def _describe(path: str) -> dict:
    digest, size = hashlib.sha256(), 0
    with tf.io.gfile.GFile(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return {"bytes": size, "sha256": digest.hexdigest()}
