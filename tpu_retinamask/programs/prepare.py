r"""Write a CSV and its files as one data set of TFRecord shards, for fast reading and for buckets.

  python -m tpu_retinamask.prepare --annotations=train.csv --val_annotations=val.csv --classes=classes.csv \
      --data_dir=gs://bucket/cells
  python -m tpu_retinamask.prepare --data_dir=gs://bucket/cells --verify

With `--beam_options` Apache Beam's workers do it.
Run the same command again to go on after an interruption. `train --data_dir` then gives the batches of the CSV; TFDS
reads the folder too (`tfds.builder_from_directory`). docs/records.md tells what lies in it.
"""

import functools
import importlib.util
import json
import logging
from typing import Any, Literal

import gin

from tpu_retinamask import config, signs_of_life
from tpu_retinamask.data.prepared.reading import open_records, verify_records
from tpu_retinamask.data.sources.opening import read_splits, scan_split
from tpu_retinamask.errors import UserError
from tpu_retinamask.holding import held_folder
from tpu_retinamask.programs.command_line import Flags
from tpu_retinamask.programs.own_settings import checked
from tpu_retinamask.tasks.beam_preparation import (
    BeamJob,
    SourceOfSplit,
    listing_digest,
    make_builder,
    pipeline_options,
    scan_with_beam,
    write_with_beam,
)

log = logging.getLogger(__name__)


@gin.configurable
@checked(images_per_shard=(1, None), threads=(1, None))
def prepare(
    flags: Flags,
    *,
    on_bad_record: Literal["stop", "skip"] | None = None,
    exif_orientation: Literal["refuse", "ignore", "apply"] | None = None,
    images_per_shard: int = 256,
    threads: int = 8,
    progress: bool = True,
) -> None:
    """Scan the annotated images and write those that can be used.

    Args:
      flags: where the images of the splits `train` and `validation` are listed, and where the data set goes, a folder
        of its own.
      on_bad_record: in place of that of `source`; None: that holds.
      exif_orientation: in place of that of `source`; None: that holds.
      images_per_shard: images a TFRecord file; what an interruption loses at most.
      threads: images read at a time.
      progress: show progress bars.
    """
    settings = config.reading(on_bad_record=on_bad_record, exif_orientation=exif_orientation)
    splits = read_splits(
        flags.annotations,
        flags.classes,
        flags.val_annotations,
        settings=settings,
        image_folder=flags.images,
        val_image_folder=flags.val_images,
        source_format=flags.format,
    )
    told: dict[str, Any] = {
        "on_bad_record": settings.on_bad_record,
        "exif_orientation": settings.exif_orientation,
        **{name: split.sha256 for name, split in splits.items() if split.sha256},
    }
    if settings.value_range is not None:
        told["value_range"] = list(settings.value_range)
    job = BeamJob(
        flags.data_dir,
        tuple(
            (name, SourceOfSplit(split.path, split.kind, split.content.classes, split.options))
            for name, split in splits.items()
        ),
        images_per_shard,
        json.dumps(told),
        listing_digest(split.content.images for split in splits.values()),
    )
    beam = None if flags.beam_options is None else pipeline_options(flags.beam_options)
    scanned = {
        name: scan_split(
            split,
            threads=threads,
            progress=progress,
            elsewhere=None if beam is None else functools.partial(scan_with_beam, job, beam, name),
        )
        for name, split in splits.items()
    }
    for name, result in scanned.items():
        log.info("%s: %s", name, result.summary())
    builder = make_builder(job, scanned, threads=threads)
    elsewhere = None if beam is None else functools.partial(write_with_beam, job, beam)
    if not builder.build(progress=progress, elsewhere=elsewhere):
        log.info("%s was finished already; nothing was written", flags.data_dir)
    for name in splits:
        log.info("%s: %d images ready in %s", name, len(open_records(flags.data_dir).split(name)), flags.data_dir)


def run(flags: Flags) -> None:
    """Run the program."""
    signs_of_life.now(None)  # a bar shows how far it is
    if flags.verify:
        log.info(
            "%d files of %s are as they were written", verify_records(flags.data_dir, progress=True), flags.data_dir
        )
        return
    if flags.annotations is None:
        raise UserError("prepare needs --annotations, or --verify for a data set that is there")
    if importlib.util.find_spec("tensorflow_datasets") is None:
        raise UserError(
            "prepare writes with tensorflow-datasets, which is not installed: pip install 'tpu-retinamask[records]'"
        )
    config.parse_gin(flags.gin_file, flags.gin_param)
    with held_folder(flags.data_dir, "prepare", "--data_dir"):  # its workers write there in its name
        prepare(flags)
