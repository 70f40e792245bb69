r"""Write a CSV and its files as one data set of TFRecord shards, for fast reading and for buckets.

  python -m tpu_retinamask.prepare --annotations=train.csv --val_annotations=val.csv --classes=classes.csv \
      --data_dir=gs://bucket/cells
  python -m tpu_retinamask.prepare --data_dir=gs://bucket/cells --verify

Run the same command again to go on after an interruption. `train --data_dir` then gives the batches of the CSV; TFDS
reads the folder too (`tfds.builder_from_directory`). docs/records.md tells what lies in it.
"""

import importlib.util
import logging
from typing import Any, Literal

import gin

from tpu_retinamask import config
from tpu_retinamask.data.prepared.reading import open_records, verify_records
from tpu_retinamask.data.prepared.writing import RecordsBuilder
from tpu_retinamask.data.sources.opening import scan_splits
from tpu_retinamask.errors import UserError
from tpu_retinamask.programs.command_line import Flags
from tpu_retinamask.programs.own_settings import checked

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
    names, splits, digests = scan_splits(
        flags.annotations,
        flags.classes,
        flags.val_annotations,
        source_format=flags.format,
        settings=settings,
        image_folder=flags.images,
        val_image_folder=flags.val_images,
        threads=threads,
        progress=progress,
    )
    for split, scanned in splits.items():
        log.info("%s: %s", split, scanned.summary())
    sources: dict[str, Any] = {
        "on_bad_record": settings.on_bad_record,
        "exif_orientation": settings.exif_orientation,
        **digests,
    }
    if settings.value_range is not None:
        sources["value_range"] = list(settings.value_range)
    builder = RecordsBuilder(
        flags.data_dir, names, splits, sources=sources, images_per_shard=images_per_shard, threads=threads
    )
    if not builder.build(progress=progress):
        log.info("%s was finished already; nothing was written", flags.data_dir)
    for split in splits:
        log.info("%s: %d images ready in %s", split, len(open_records(flags.data_dir).split(split)), flags.data_dir)


def run(flags: Flags) -> None:
    """Run the program."""
    if flags.verify:
        log.info(
            "%d files of %s are as they were written", verify_records(flags.data_dir, progress=True), flags.data_dir
        )
        return
    missing = [f"--{name}" for name in ("annotations", "classes") if flags[name].value is None]
    if missing:
        raise UserError(f"prepare needs {' and '.join(missing)}, or --verify for a data set that is there")
    if importlib.util.find_spec("tensorflow_datasets") is None:
        raise UserError(
            "prepare writes with tensorflow-datasets, which is not installed: pip install 'tpu-retinamask[records]'"
        )
    config.parse_gin(flags.gin_file, flags.gin_param)
    prepare(flags)
