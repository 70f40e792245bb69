"""Prepare a data set with the workers of Apache Beam: its images are scanned and its shards written in parallel.

What a worker is given is small: where the annotations are and the number of a chunk or of a shard. It reads the
annotations itself, once; what scanning found lies beside the shards that are written, so that a job that was killed
goes on. Beam runs it where its options say: processes of this machine, Dataflow, Spark, Flink.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.util
import json
import logging
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tpu_retinamask.data.annotated_image import AnnotatedImage, AnnotatedInstance, ListedImage
from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.annotations.instance_checks import Checked
from tpu_retinamask.data.annotations.scan import Problem, ScannedImage, ScanResult, gather, scan_image
from tpu_retinamask.data.masks import ColourMask, FileMask, Mask
from tpu_retinamask.data.pixel_reading import ConvertedImage, PixelReading
from tpu_retinamask.data.prepared.reading import UNFINISHED
from tpu_retinamask.data.prepared.writing import RecordsBuilder, refuse_other_files
from tpu_retinamask.data.record_checks import RecordsError
from tpu_retinamask.data.sources.registry import SOURCES, ReadOptions
from tpu_retinamask.errors import UserError
from tpu_retinamask.files import read_bytes, write_json_atomically

CHUNK = 256  # images scanned at a time: what a killed scan loses at most, for each worker


class SourceOfSplit(NamedTuple):
    """Where the images of one split are listed, and how they are read."""

    path: str
    kind: str  # name in SOURCES
    classes: ClassNames
    options: ReadOptions


class BeamJob(NamedTuple):
    """One preparation, as every worker is told of it."""

    data_dir: str
    sources: tuple[tuple[str, SourceOfSplit], ...]  # by the name of the split
    images_per_shard: int
    told: str  # JSON of `sources` of RecordsBuilder
    listing: str  # digest of what the sources list: a folder of annotations has no other


def listing_digest(splits: Iterable[Sequence[ListedImage]]) -> str:
    """Return the digest of images and boxes in their order, by which findings of an earlier listing are passed over."""
    digest = hashlib.sha256()
    for listed in splits:
        for image in listed:
            digest.update(repr((image.name, [(i.line, i.box, i.class_id) for i in image.instances])).encode())
    return digest.hexdigest()


def pipeline_options(text: str) -> list[str]:
    """Return Beam's options of a flag: "runner=DirectRunner,direct_num_workers=2" as "--runner=DirectRunner", ...

    Raises:
      UserError: Beam is not installed.
    """
    if importlib.util.find_spec("apache_beam") is None:
        raise UserError("--beam_options needs Apache Beam, which is not installed: pip install 'tpu-retinamask[beam]'")
    return [f"--{option.strip().removeprefix('--')}" for option in text.split(",") if option.strip()]


def scan_with_beam(job: BeamJob, options: list[str], split: str, listed: Sequence[ListedImage]) -> list[ScannedImage]:
    """Open every image and mask of a split on Beam's workers; what `scan.scan_images` calls in place of its threads.

    Args:
      job: what is prepared.
      options: of the pipeline.
      split: its name.
      listed: its images.

    Raises:
      RecordsError: the folder holds other files; a worker failed.
    """
    refuse_other_files(job.data_dir)
    tf.io.gfile.makedirs(_scan_folder(job))
    chunks = [(split, start) for start in range(0, len(listed), CHUNK)]
    _run(functools.partial(_scan_chunk, job), [c for c in chunks if not tf.io.gfile.exists(_chunk(job, *c))], options)
    return _found(job, split, listed)


def write_with_beam(job: BeamJob, options: list[str], shards: list[tuple[str, int]]) -> None:
    """Write shards on Beam's workers; `build(elsewhere=...)` of a builder gives them.

    Raises:
      RecordsError: a worker failed.
    """
    _run(functools.partial(_write_shard, job), shards, options)


def _run(work: Callable[[Any], None], elements: list, options: list[str]) -> None:
    import apache_beam as beam  # pyright: ignore[reportMissingImports]  # an extra
    from apache_beam.options.pipeline_options import PipelineOptions  # pyright: ignore[reportMissingImports]

    if not elements:
        return
    try:
        with beam.Pipeline(options=PipelineOptions(options)) as pipeline:
            # Shuffled, for a runner keeps what one step makes on one worker.
            _ = pipeline | beam.Create(elements) | beam.Reshuffle() | beam.Map(work)
    except UserError:
        raise
    except Exception as error:  # Beam makes a RuntimeError of whatever a worker meets, its traceback in the text
        last = [line for line in str(error).splitlines() if line.strip()]
        raise RecordsError(
            f"a worker of Beam failed: {last[-1] if last else type(error).__name__}. When that is mended, run the same "
            "command again: it goes on with what is not whole"
        ) from error


def _scan_chunk(job: BeamJob, chunk: tuple[str, int]) -> None:
    split, start = chunk
    settings = dict(job.sources)[split].options.settings
    listed = _listed(job, split)[start : start + CHUNK]
    found = [
        _encoded(scan_image(start + row, image, settings.exif_orientation, settings.pixels), image)
        for row, image in enumerate(listed)
    ]
    write_json_atomically(_chunk(job, *chunk), found)


def _write_shard(job: BeamJob, shard: tuple[str, int]) -> None:
    _builder(job).write_shard(*shard)


@functools.lru_cache(maxsize=1)  # a worker prepares one data set, and reads what it needs of it once
def _builder(job: BeamJob) -> RecordsBuilder:
    scanned = {}
    with _quiet():
        for split, source in job.sources:
            scanned[split] = gather(_found(job, split, _listed(job, split)), source.options.settings.on_bad_record)
    return make_builder(job, scanned)


def make_builder(job: BeamJob, scanned: Mapping[str, ScanResult], *, threads: int = 8) -> RecordsBuilder:
    """Return the builder of a job, which writes the same in every process."""
    return RecordsBuilder(
        job.data_dir,
        job.sources[0][1].classes,
        scanned,
        sources=json.loads(job.told),
        images_per_shard=job.images_per_shard,
        threads=threads,
    )


@functools.lru_cache(maxsize=2)
def _listed(job: BeamJob, split: str) -> list[ListedImage]:
    source = dict(job.sources)[split]
    with _quiet():
        return SOURCES.get(source.kind).read(source.path, source.classes, source.options).images


def _found(job: BeamJob, split: str, listed: Sequence[ListedImage]) -> list[ScannedImage]:
    pixels = dict(job.sources)[split].options.settings.pixels
    found = []
    for start in range(0, len(listed), CHUNK):
        chunk = json.loads(read_bytes(_chunk(job, split, start)))
        for image_id, (image, entry) in enumerate(zip(listed[start : start + CHUNK], chunk, strict=True), start):
            found.append(_decoded(image, image_id, entry, pixels))
    return found


def _encoded(scanned: ScannedImage, listed: ListedImage) -> dict:
    """Return as JSON what a scan found beyond what the source lists."""
    annotated = scanned.annotated
    return {
        "image": annotated and [annotated.height, annotated.width, annotated.orientation],
        "converted": annotated is not None and isinstance(annotated.image, ConvertedImage),
        "objects": [
            [row, one.instance.box, _mask_code(listed.instances[row].mask, one.instance.mask), *one[1:]]
            for row, one in zip(scanned.rows, scanned.checked, strict=True)
        ],
        "problems": scanned.problems,
        "digest": scanned.digest,
    }


def _mask_code(listed: Mask | None, kept: Mask | None) -> list:
    """Return what became of a mask: nothing, none, the value that its label is decoded as, or a palette's index."""
    if kept is None and listed is not None:
        return ["none"]
    if isinstance(kept, FileMask):
        return ["decoded", kept.decoded_value]
    if isinstance(kept, ColourMask) and isinstance(listed, FileMask):
        return ["index", kept.index]
    return ["same"]


def _mask_of(listed: Mask | None, code: list) -> Mask | None:
    what, *value = code
    if what == "none":
        return None
    if isinstance(listed, FileMask) and what == "decoded":
        return dataclasses.replace(listed, decoded_value=value[0])
    if isinstance(listed, FileMask) and what == "index":
        return ColourMask(listed.path, index=value[0])
    return listed


def _decoded(listed: ListedImage, image_id: int, entry: dict, pixels: PixelReading) -> ScannedImage:
    problems = [Problem(*problem) for problem in entry["problems"]]
    if entry["image"] is None:
        return ScannedImage(None, [], [], problems)
    rows, checked = [], []
    for row, box, code, *told in entry["objects"]:
        instance = listed.instances[row]
        mask = _mask_of(instance.mask, code)
        rows.append(row)
        checked.append(Checked(AnnotatedInstance(instance.line, tuple(box), instance.class_id, mask), *told))
    kept = tuple(one.instance for one in checked)
    height, width, orientation = entry["image"]
    image = ConvertedImage(listed.image, pixels) if entry["converted"] else listed.image
    annotated = AnnotatedImage(image, listed.name, image_id, height, width, orientation, kept)
    return ScannedImage(annotated, rows, checked, problems, entry["digest"])


def _scan_folder(job: BeamJob) -> str:
    """Return where the findings of this job lie: those of another, of other settings or annotations, are not taken."""
    said = repr((job.sources, job.told, job.listing)).encode()
    return posixpath.join(job.data_dir, UNFINISHED, f"scan-{hashlib.sha256(said).hexdigest()[:16]}")


def _chunk(job: BeamJob, split: str, start: int) -> str:
    return posixpath.join(_scan_folder(job), f"{split}-{start:09d}.json")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave what reading says to the process that the user looks at."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
