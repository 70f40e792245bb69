"""Write scanned records as a TFDS data set: shard by shard, so that a killed preparation goes on where it was.

A shard is written under another name and renamed when it is whole; then its part of the index is written, which is
what counts as done. Which image goes into which shard follows from the records alone, so that an interrupted
preparation ends with the bytes of an unbroken one. TFDS's own writer shuffles through temporary files and cannot go
on: of TFDS we use the features, the serialisation of an example and the metadata.
"""

import concurrent.futures
import hashlib
import json
import logging
import posixpath
import uuid
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import tensorflow as tf
import tqdm

from tpu_retinamask.data.annotated_image import AnnotatedImage
from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.annotations.scan import ScanResult
from tpu_retinamask.data.images.decode import decode_image, decode_mask
from tpu_retinamask.data.images.image_files import read_file
from tpu_retinamask.data.images.mask_reader import draw_mask, inside_box, is_shared, picture_bytes, shared_mask_files
from tpu_retinamask.data.images.packed_masks import pack_masks
from tpu_retinamask.data.masks import ArrayMask, FileMask, Mask
from tpu_retinamask.data.prepared.checksums import (
    CHECKSUMS_FILE,
    CLASSES_FILE,
    DATASET,
    FORMAT,
    PREPARED_FILE,
    TFDS_FILES,
    index_name,
    shard_name,
)
from tpu_retinamask.data.prepared.index import SplitIndex
from tpu_retinamask.data.prepared.reading import UNFINISHED, file_bytes
from tpu_retinamask.data.record_checks import RecordsError
from tpu_retinamask.data.record_format import FRAME_BYTES, tfds_features, tfds_serializer
from tpu_retinamask.files import file_sha256, force, is_temporary, list_folder, read_bytes, read_if_there, reason_of
from tpu_retinamask.holding import LOCK

log = logging.getLogger(__name__)


class RecordsBuilder:
    """Prepares one data set."""

    def __init__(
        self,
        data_dir: str,
        classes: ClassNames,
        splits: Mapping[str, ScanResult],
        *,
        sources: Mapping,
        images_per_shard: int = 256,
        threads: int = 8,
    ) -> None:
        """Lay out the shards; nothing is written yet.

        Args:
          data_dir: local path or any URL that tf.io.gfile writes.
          classes: names of the classes.
          splits: what `scan.scan_images` gave, by the name of the split.
          sources: what the records were made of and how (JSON values, no paths): kept in prepared.json, and a
            preparation goes on only where they are the same.
          images_per_shard: images a shard; what is lost at most when a preparation is killed.
          threads: images read and packed at a time.

        Raises:
          ValueError: images_per_shard is not positive.
        """
        if images_per_shard < 1:
            raise ValueError(f"images_per_shard is {images_per_shard}, expected at least 1")
        self.data_dir, self.classes, self.threads = data_dir, classes, threads
        self.images = {name: scanned.images for name, scanned in splits.items()}
        self.images_per_shard = images_per_shard
        self._writer = uuid.uuid4().hex  # several may write into one folder at a time, each its own shards
        self.features = tfds_features(classes.name_of(i) for i in range(classes.num_classes))
        self._serializer = tfds_serializer(self.features)
        self.prepared = {
            "format": FORMAT,
            "images_per_shard": images_per_shard,
            "sources": dict(sources),
            "splits": {
                name: {
                    "images": len(scanned.images),
                    "instances": sum(len(annotated.instances) for annotated in scanned.images),
                    "shards": self._shard_count(name),
                    "scan": scanned.summary(),
                    "digest": _digest(scanned.images),
                }
                for name, scanned in splits.items()
            },
        }

    def build(
        self, *, progress: bool = False, elsewhere: Callable[[list[tuple[str, int]]], None] | None = None
    ) -> bool:
        """Write the data set, or what is missing of it.

        Args:
          progress: show a progress bar.
          elsewhere: sees to it that `write_shard` is called for each (split, number of the shard), in any process that
            has a builder like this one; None: this process writes them, one after the other.

        Returns:
          False where it was finished already.

        Raises:
          RecordsError: the folder holds another data set, or cannot be written.
        """
        plan = json.dumps(self.prepared, indent=1, sort_keys=True).encode()
        try:
            if self._finished(plan):
                return False
            self._start(plan)
            shards = [(split, shard) for split in self.images for shard in range(self._shard_count(split))]
            done = {job: index for job in shards if (index := self._done(*job)) is not None}
            total = sum(len(images) for images in self.images.values())
            before = sum(len(index.image_id) for index in done.values())
            if done:
                log.info("going on: %d of %d images are in finished shards", before, total)
            left = [job for job in shards if job not in done]
            if elsewhere is not None:
                elsewhere(left)
            else:
                with tqdm.tqdm(total=total, initial=before, desc="prepare", unit="image", disable=not progress) as bar:
                    for job in left:
                        self.write_shard(*job, bar.update)
            self._finish(plan)
        except (tf.errors.OpError, OSError) as error:
            raise RecordsError(
                f"cannot write to {self.data_dir}: {reason_of(error)}. When that is mended, run the same "
                "command again: it goes on with the first shard that is not whole"
            ) from error
        return True

    def _finished(self, plan: bytes) -> bool:
        if read_if_there(self._path(CHECKSUMS_FILE)) is None:
            return False
        self._same(self._path(PREPARED_FILE), plan)
        self._clear()  # killed after the last file but one
        return True

    def _start(self, plan: bytes):
        tf.io.gfile.makedirs(self._path(UNFINISHED))
        path = self._path(UNFINISHED, PREPARED_FILE)
        if read_if_there(path) is None:
            refuse_other_files(self.data_dir)
            self._write(path, plan)
        self._same(path, plan)

    def _same(self, path: str, plan: bytes):
        old, new = json.loads(read_if_there(path) or b"{}"), json.loads(plan)
        if old != new:
            keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
            raise RecordsError(
                f"{self.data_dir} holds a data set prepared from something else ({', '.join(keys)} differ): choose "
                "another --data_dir, or delete this one"
            )

    def _done(self, split: str, shard: int) -> SplitIndex | None:
        content = read_if_there(self._part(split, shard))
        if content is None:
            return None
        index = SplitIndex.from_bytes(content)
        size = file_bytes(self._path(shard_name(split, shard, self._shard_count(split))))
        return index if size == index.shard_bytes[0] else None

    def write_shard(self, split: str, shard: int, written: Callable[[], object] = lambda: None) -> None:
        """Write one shard and its part of the index.

        Args:
          split: name.
          shard: number, from 0.
          written: called after each image.

        Raises:
          RecordsError: fewer bytes arrived than were written.
        """
        images = self.images[split][shard * self.images_per_shard : (shard + 1) * self.images_per_shard]
        partial = self._path(UNFINISHED, f"shard-{self._writer}")
        places, offset = [], 0
        window = 4 * self.threads  # images in memory at a time
        with tf.io.TFRecordWriter(partial) as writer, concurrent.futures.ThreadPoolExecutor(self.threads) as pool:
            for start in range(0, len(images), window):
                for serialized in pool.map(self._serialize, images[start : start + window]):
                    writer.write(serialized)
                    places.append((offset, len(serialized)))
                    offset += len(serialized) + FRAME_BYTES
                    written()
        digest = file_sha256(partial)
        if file_bytes(partial) != offset:
            raise RecordsError(
                f"{partial} has {file_bytes(partial)} bytes after writing {offset}: the disk may be full"
            )
        force(partial)
        name = shard_name(split, shard, self._shard_count(split))
        tf.io.gfile.rename(partial, self._path(name), overwrite=True)
        self._write(self._part(split, shard) + ".sha256", f"{digest}  {name}\n".encode())
        self._write(self._part(split, shard), _index(images, places, shard, offset).to_bytes())

    def _serialize(self, annotated: AnnotatedImage) -> bytes:
        windows, packed = pack_masks(list(_instance_masks(annotated)))
        example = self.features.encode_example(
            {
                "image": _image_file(annotated),
                "image/id": annotated.image_id,
                "image/filename": annotated.name,
                "image/size": np.array([annotated.height, annotated.width], np.int64),
                "image/orientation": annotated.orientation,
                "objects": [
                    {
                        "box": np.array(instance.box, np.float32),
                        "class": instance.class_id,
                        "has_mask": instance.mask is not None,
                        "mask_window": window.astype(np.int64),
                    }
                    for instance, window in zip(annotated.instances, windows)
                ],
                "masks": packed,
            }
        )
        # Deterministic: the features of an Example are a map, which protobuf writes in any order it likes.
        return self._serializer.get_tf_example(example).SerializeToString(deterministic=True)

    def _finish(self, plan: bytes):
        import tensorflow_datasets as tfds

        sums, infos = [], []
        for split in self.images:
            count = self._shard_count(split)
            parts = [SplitIndex.from_bytes(read_bytes(self._part(split, shard))) for shard in range(count)]
            sums += [read_bytes(self._part(split, shard) + ".sha256").decode() for shard in range(count)]
            index = _merged(parts)
            self._write(self._path(index_name(split)), index.to_bytes())
            infos.append(
                tfds.core.SplitInfo(
                    name=split,
                    shard_lengths=[len(part.image_id) for part in parts],
                    num_bytes=int(index.length.sum()),
                    filename_template=tfds.core.ShardedFileTemplate(
                        data_dir=self.data_dir, dataset_name=DATASET, split=split, filetype_suffix="tfrecord"
                    ),
                )
            )
        self._write(self._path(CLASSES_FILE), self.classes.to_csv().encode())
        self._write(self._path(PREPARED_FILE), plan)
        self._write_metadata(infos)
        for name in (*map(index_name, self.images), CLASSES_FILE, PREPARED_FILE, *TFDS_FILES):
            sums.append(f"{file_sha256(self._path(name))}  {name}\n")
        self._write(self._path(CHECKSUMS_FILE), "".join(sums).encode())
        self._clear()

    def _write_metadata(self, splits: list):
        """Write TFDS's own files, which it writes in place: elsewhere, then they are renamed."""
        import tensorflow_datasets as tfds

        folder = self._path(UNFINISHED, "metadata")
        tf.io.gfile.makedirs(folder)
        for split in self.images:  # TFDS learns their names and the kind of file from that of a file of each
            self._write(posixpath.join(folder, shard_name(split, 0, self._shard_count(split))), b"")
        named = posixpath.basename(self.data_dir.rstrip("/"))
        tfds.folder_dataset.write_metadata(
            data_dir=folder,
            version=named if tfds.core.Version.is_valid(named) else "1.0.0",
            features=self.features,
            split_infos=splits,
            check_data=False,
            description="Images with boxes and masks, prepared for tpu_retinamask.",
        )
        for name in TFDS_FILES:
            force(posixpath.join(folder, name))
            tf.io.gfile.rename(posixpath.join(folder, name), self._path(name), overwrite=True)

    def _clear(self):
        if tf.io.gfile.exists(self._path(UNFINISHED)):
            tf.io.gfile.rmtree(self._path(UNFINISHED))

    def _write(self, path: str, content: bytes):
        partial = self._path(UNFINISHED, f"file-{self._writer}")
        with tf.io.gfile.GFile(partial, "wb") as file:
            file.write(content)
        force(partial)
        tf.io.gfile.rename(partial, path, overwrite=True)

    def _shard_count(self, split: str) -> int:
        return -(-len(self.images[split]) // self.images_per_shard)

    def _path(self, *names: str) -> str:
        return posixpath.join(self.data_dir, *names)

    def _part(self, split: str, shard: int) -> str:
        return self._path(UNFINISHED, f"{split}-{shard:05d}.npz")


def refuse_other_files(data_dir: str) -> None:
    """Refuse a folder that holds files of anyone else's.

    Raises:
      RecordsError: it does; names some.
    """
    if not tf.io.gfile.exists(data_dir) or read_if_there(posixpath.join(data_dir, CHECKSUMS_FILE)) is not None:
        return
    if read_if_there(posixpath.join(data_dir, UNFINISHED, PREPARED_FILE)) is not None:
        return
    found = set(list_folder(data_dir)) - {UNFINISHED, UNFINISHED + "/", LOCK}
    strange = sorted(name for name in found if not is_temporary(name))
    if strange:
        raise RecordsError(f"{data_dir} holds other files ({', '.join(strange[:5])}): give prepare a folder of its own")


def _instance_masks(annotated: AnnotatedImage) -> Iterator[np.ndarray | None]:
    """Yield the mask of each instance, bool [h, w] or None; files are decoded by the operations that training uses."""
    shared = shared_mask_files(annotated)
    path = values = None
    for instance in annotated.instances:
        mask = instance.mask
        if not isinstance(mask, FileMask):
            yield None if mask is None else draw_mask(mask, annotated.height, annotated.width)
            continue
        if mask.path != path:
            path, values = mask.path, decode_mask(read_file(mask.path)).numpy()
        pixels = values != 0 if mask.decoded_value is None else values == mask.decoded_value
        yield pixels & inside_box(instance.box, pixels.shape) if is_shared(mask, shared) else pixels


def _image_file(annotated: AnnotatedImage) -> bytes:
    data = picture_bytes(annotated.image)
    if data[:3] == b"GIF":  # TFDS would read it as a film; PNG holds the same pixels
        return tf.io.encode_png(decode_image(data)).numpy()
    return data


def _index(images: list[AnnotatedImage], places, shard: int, shard_bytes: int) -> SplitIndex:
    instances = [instance for annotated in images for instance in annotated.instances]
    return SplitIndex(
        shard_bytes=np.array([shard_bytes], np.int64),
        shard=np.full([len(images)], shard, np.int32),
        offset=np.array([offset for offset, _ in places], np.int64),
        length=np.array([length for _, length in places], np.int64),
        image_id=np.array([annotated.image_id for annotated in images], np.int64),
        name=np.array([annotated.name for annotated in images]),
        size=np.array([(annotated.height, annotated.width) for annotated in images], np.int32),
        orientation=np.array([annotated.orientation for annotated in images], np.int32),
        splits=np.cumsum([0] + [len(annotated.instances) for annotated in images]),
        line=np.array([instance.line for instance in instances], np.int64),
        box=np.array([instance.box for instance in instances], np.float64).reshape(-1, 4),
        class_id=np.array([instance.class_id for instance in instances], np.int32),
        has_mask=np.array([instance.mask is not None for instance in instances], bool),
    )


def _merged(parts: list[SplitIndex]) -> SplitIndex:
    counts = np.concatenate([np.diff(part.splits) for part in parts])
    joined = {field: np.concatenate([getattr(part, field) for part in parts]) for field in SplitIndex._fields}
    return SplitIndex(**joined | {"splits": np.cumsum(np.concatenate([[0], counts]))})


def _digest(images: list[AnnotatedImage]) -> str:
    """Digest what the scan kept: what an annotation file gave under the settings of the scan."""
    digest = hashlib.sha256()
    for annotated in images:
        digest.update(
            repr(
                (
                    annotated.name,
                    annotated.image_id,
                    annotated.height,
                    annotated.width,
                    annotated.orientation,
                    [(i.line, i.box, i.class_id, i.mask is not None, _digested(i.mask)) for i in annotated.instances],
                )
            ).encode()
        )
    return digest.hexdigest()


def _digested(mask: Mask | None) -> object:
    """Return what tells a mask from another of the same row: the label, or what is drawn."""
    if isinstance(mask, FileMask):
        return mask.value
    if isinstance(mask, ArrayMask):
        return hashlib.sha256(mask.array.tobytes()).hexdigest()
    return mask
