"""Checkpoints as files: what is damaged or unfinished is passed over by name, on a disk as in a bucket."""

import hashlib
import json
import os

import pytest
import tensorflow as tf

from tpu_retinamask.errors import UserError
from tpu_retinamask.training.checkpoints.files import CheckpointFiles, DamagedCheckpointError, SaveError
from tpu_retinamask.training.checkpoints.manifest import read_manifest


@pytest.fixture(params=["disk", "ram"])
def directory(request, tmp_path):
    """A directory that does not exist yet; `ram://` is a file system of TensorFlow's, reached as a bucket is."""
    return str(tmp_path / "checkpoints") if request.param == "disk" else f"ram://{tmp_path}/checkpoints"


def _write(directory, *steps, keep=3):
    """Write checkpoints whose only number is their step."""
    number = tf.Variable(0)
    checkpoint, files = tf.train.Checkpoint(part={"a/number": number}), CheckpointFiles(directory, keep)
    for step in steps:
        number.assign(step)
        files.write(checkpoint, step, {"note": step / 2})
    return files


def _number(path):
    return tf.compat.v1.train.NewCheckpointReader(path).get_tensor("part/a.Snumber/.ATTRIBUTES/VARIABLE_VALUE")


def _bytes(path, content=None):
    if content is not None and tf.io.gfile.exists(path):
        tf.io.gfile.remove(path)  # ram:// would append
    with tf.io.gfile.GFile(path, "rb" if content is None else "wb") as file:
        return file.read() if content is None else file.write(content)


def test_what_was_written_comes_back_and_the_newest_are_kept(directory):
    _write(directory, 5, 10, 15, keep=2)
    files = CheckpointFiles(directory)
    found = files.newest()
    assert (found.step, found.values, _number(found.path)) == (15, {"note": 7.5}, 15)
    assert files.at(10).values == {"note": 5.0} and _number(files.at(10).path) == 10
    suffixes = (".index", ".data-00000-of-00001", ".manifest.json")
    assert sorted(tf.io.gfile.listdir(directory)) == sorted(
        ["checkpoint", *(f"ckpt-{step}{suffix}" for step in (10, 15) for suffix in suffixes)]
    )
    with pytest.raises(UserError, match=r"no checkpoint of step 5, but those of the steps \[10, 15\]"):
        files.at(5)
    assert tf.train.latest_checkpoint(directory) == found.path  # for other readers


def test_the_one_just_written_is_kept_though_it_is_of_an_earlier_step(directory):
    _write(directory, 20, 15, keep=1)  # the best of a run that went on from before its best
    assert CheckpointFiles(directory).newest().step == 15
    _write(directory, 30, 12, keep=2)
    assert {step for step in (12, 15, 30) if CheckpointFiles(directory).holds(step)} == {12, 30}


def test_an_empty_or_missing_directory_holds_none(directory):
    assert CheckpointFiles(directory).newest() is None
    tf.io.gfile.makedirs(directory)
    assert CheckpointFiles(directory).newest() is None


def _cut(path):
    _bytes(path, _bytes(path)[:-1])


def _flip(path):
    content = bytearray(_bytes(path))
    content[len(content) // 2] ^= 1
    _bytes(path, bytes(content))


DAMAGES = {
    "cut data": (".data-00000-of-00001", _cut, "bytes, "),
    "flipped data": (".data-00000-of-00001", _flip, "does not hold what was written"),
    "flipped index": (".index", _flip, "does not hold what was written"),
    "lost data": (".data-00000-of-00001", tf.io.gfile.remove, "is missing"),
    "lost index": (".index", tf.io.gfile.remove, "ckpt-20.index is missing"),
    "cut manifest": (".manifest.json", _cut, ""),
    "empty manifest": (".manifest.json", lambda path: _bytes(path, b"{}"), "files"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_falls_back_to_the_one_before(directory, said, damage):
    suffix, do, words = DAMAGES[damage]
    _write(directory, 10, 20)
    do(os.path.join(directory, f"ckpt-20{suffix}"))
    files = CheckpointFiles(directory, keep=2)
    assert files.newest().step == 10
    assert "ckpt-20 is damaged and passed over: " in said() and words in said()
    # With nothing left that is intact it is an error, and never a silent start from the beginning.
    do(os.path.join(directory, f"ckpt-10{suffix}"))
    with pytest.raises(DamagedCheckpointError, match="no intact checkpoint:\n  ckpt-20: .*\n  ckpt-10: .*\nPut a copy"):
        files.newest()


def test_a_damaged_checkpoint_gives_its_place_to_the_next(directory):
    _write(directory, 10, 20)
    _cut(os.path.join(directory, "ckpt-20.index"))
    files = CheckpointFiles(directory, keep=2)
    assert files.newest().step == 10
    files.write(tf.train.Checkpoint(part={"a/number": tf.Variable(15)}), 15)
    assert {name.split(".")[0] for name in tf.io.gfile.listdir(directory)} == {"checkpoint", "ckpt-10", "ckpt-15"}
    assert CheckpointFiles(directory).newest().step == 15


def test_a_save_that_never_ended_is_passed_over_and_cleared_away(directory, said):
    _write(directory, 20)
    # As a kill leaves it: all written but the manifest; or parts under temporary names.
    tf.io.gfile.remove(os.path.join(directory, "ckpt-20.manifest.json"))
    tf.io.gfile.remove(os.path.join(directory, "checkpoint"))
    tf.io.gfile.makedirs(os.path.join(directory, "ckpt-30_temp"))
    _bytes(os.path.join(directory, "ckpt-30_temp", "part-0"), b"half")
    _bytes(os.path.join(directory, "ckpt-40.data-00000-of-00001.tempstate1"), b"half")
    assert CheckpointFiles(directory).newest() is None  # a run killed in its very first save has nothing to lose
    for step in (20, 30, 40):
        assert f"ckpt-{step} was not saved to its end and is passed over" in said()
    _write(directory, 15)
    assert {name.rstrip("/").split(".")[0] for name in tf.io.gfile.listdir(directory)} == {"checkpoint", "ckpt-15"}


def test_checkpoints_of_tensorflows_manager_are_read_and_checked(directory, said):
    number = tf.Variable(7)
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(part={"a/number": number}), directory, max_to_keep=3)
    for step in (7, 8):
        number.assign(step)
        manager.save(checkpoint_number=step)
    found = CheckpointFiles(directory).newest()
    assert found.step == 8 and found.values == {} and _number(found.path) == 8
    _cut(os.path.join(directory, "ckpt-8.data-00000-of-00001"))
    assert CheckpointFiles(directory).newest().step == 7
    assert "ckpt-8 is damaged" in said()
    _write(directory, 9)  # beside ours they stay
    assert CheckpointFiles(directory).at(7).step == 7


def test_a_failed_write_keeps_what_was_there(directory, monkeypatch):
    files = _write(directory, 10)
    before = sorted(tf.io.gfile.listdir(directory))
    checkpoint = tf.train.Checkpoint(part={"a/number": tf.Variable(1)})

    def full(path):
        _bytes(f"{path}.data-00000-of-00001", b"half")
        raise tf.errors.ResourceExhaustedError(None, None, f"{path}; No space left on device")

    monkeypatch.setattr(checkpoint, "write", full, raising=False)
    with pytest.raises(SaveError, match="ckpt-20 could not be saved: .*No space left on device"):
        files.write(checkpoint, 20)
    assert sorted(tf.io.gfile.listdir(directory)) == before
    assert files.newest().step == 10


def test_a_directory_that_is_a_file_is_told(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(SaveError, match="could not be saved"):
        _write(str(tmp_path / "checkpoints"), 1)


def test_the_manifest_lists_every_file_with_its_size(tmp_path):
    _write(str(tmp_path), 3)
    manifest = json.loads((tmp_path / "ckpt-3.manifest.json").read_text())
    assert manifest["step"] == 3
    assert {name: entry["bytes"] for name, entry in manifest["files"].items()} == {
        path.name: path.stat().st_size for path in tmp_path.glob("ckpt-3.[id]*")
    }


GARBAGE = {
    "one byte": lambda old: old[:30] + b"\xff" + old[31:],
    "random": lambda old: bytes(range(256)),
    "other names": lambda old: old.replace(b"-20", b"-24"),
    "a line of proto": lambda old: b"model_checkpoint_path: 3\n",
}


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("kind", ["ours", "manager"])
def test_a_damaged_pointer_is_passed_over_beside_whole_checkpoints(kind, garbage, directory, said):
    if kind == "ours":
        _write(directory, 10, 20)
    else:
        number = tf.Variable(10)
        manager = tf.train.CheckpointManager(tf.train.Checkpoint(part={"a/number": number}), directory, max_to_keep=3)
        for step in (10, 20):
            number.assign(step)
            manager.save(checkpoint_number=step)
    pointer = os.path.join(directory, "checkpoint")
    _bytes(pointer, GARBAGE[garbage](_bytes(pointer)))
    found = CheckpointFiles(directory).newest()
    assert found.step == 20 and _number(found.path) == 20
    assert ("checkpoint is damaged and passed over" in said()) == (kind == "manager")  # ours need none
    _write(directory, 30)
    assert tf.train.latest_checkpoint(directory).endswith("ckpt-30")


def test_a_pointer_that_is_a_pipe_or_a_folder_is_passed_over(tmp_path):
    _write(str(tmp_path), 10)
    for make in (os.mkfifo, os.mkdir):
        (tmp_path / "checkpoint").unlink()
        make(tmp_path / "checkpoint")
        (tmp_path / "ckpt-11.index").write_bytes(b"")  # without a manifest: the pointer is asked
        with pytest.raises(DamagedCheckpointError, match="ckpt-11"):
            CheckpointFiles(str(tmp_path)).at(11)
        assert CheckpointFiles(str(tmp_path)).newest().step == 10
        (tmp_path / "checkpoint").rename(tmp_path / make.__name__)
        (tmp_path / "checkpoint").write_text("")


def _manifest(path, **changes):
    """Return a manifest with some of it replaced, and its own digest made to fit."""
    content = json.loads(_bytes(path)) | changes
    content.pop("sha256")
    return content | {"sha256": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}


FORGED = {
    "another's": lambda path, other: json.loads(_bytes(other)),
    "no files": lambda path, other: _manifest(path, files={}),
    "no index": lambda path, other: _manifest(
        path, files={k: v for k, v in json.loads(_bytes(path))["files"].items() if not k.endswith("index")}
    ),
    "another's files": lambda path, other: _manifest(path, files=json.loads(_bytes(other))["files"]),
    "files elsewhere": lambda path, other: _manifest(
        path, files={f"../c/{name}": entry for name, entry in json.loads(_bytes(path))["files"].items()}
    ),
    "a list of files": lambda path, other: _manifest(path, files=list(json.loads(_bytes(path))["files"])),
    "values of text": lambda path, other: _manifest(path, values={"score": "high"}),
    "another step": lambda path, other: _manifest(path, step=21),
    "a step that is true": lambda path, other: _manifest(path, step=True),
    "a changed value": lambda path, other: json.loads(_bytes(path)) | {"values": {"note": 11.0}},
    "a list": lambda path, other: [],
    "without a digest, another's": lambda path, other: {
        k: v for k, v in json.loads(_bytes(other)).items() if k != "sha256"
    },
}


@pytest.mark.parametrize("forged", FORGED)
def test_a_manifest_is_that_of_exactly_its_checkpoint(forged, tmp_path, said):
    _write(str(tmp_path), 10, 20)
    path, other = (tmp_path / f"ckpt-{step}.manifest.json" for step in (20, 10))
    path.write_text(json.dumps(FORGED[forged](str(path), str(other))))
    files = CheckpointFiles(str(tmp_path))
    assert files.newest().step == 10
    assert "ckpt-20 is damaged and passed over: its manifest" in said()
    assert files.last_noted() == (20, {})


def test_every_flipped_bit_of_a_manifest_is_seen_or_changes_nothing(tmp_path):
    _write(str(tmp_path), 10)
    path = tmp_path / "ckpt-10.manifest.json"
    whole, accepted = path.read_bytes(), 0
    for place in range(0, 8 * len(whole), 5):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            found = read_manifest(str(tmp_path / "ckpt-10"), 10)
        except UserError:
            continue
        accepted += 1
        assert found.values == {"note": 5.0} and found.files == json.loads(whole)["files"]
    assert accepted < 30  # blanks for other blanks


def test_a_manifest_of_before_it_had_a_digest_is_read(tmp_path):
    _write(str(tmp_path), 10)
    path = tmp_path / "ckpt-10.manifest.json"
    content = json.loads(path.read_text())
    assert set(content) == {"step", "values", "files", "sha256"}
    del content["sha256"]
    path.write_text(json.dumps(content))
    assert CheckpointFiles(str(tmp_path)).newest().values == {"note": 5.0}
