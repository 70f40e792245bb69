"""The images of a run: those that it trains on, and those that it was told to hold out and score."""

import logging
import os
from collections.abc import Sequence

import tensorflow as tf

from tpu_retinamask import config
from tpu_retinamask.data.annotated_image import AnnotatedImage
from tpu_retinamask.data.sources.opening import Sources, open_sources
from tpu_retinamask.errors import UserError
from tpu_retinamask.files import read_text, write_atomically
from tpu_retinamask.planning.splitting import SPLIT_FILE, TRAIN, VALIDATION, from_csv, split_names, to_csv
from tpu_retinamask.programs.command_line import Flags

log = logging.getLogger(__name__)


def sources_of(flags: Flags, *, notes: bool) -> Sources:
    """Open the images that the flags name, those of --val_share held out.

    Args:
      flags: of the program.
      notes: write split.csv where it is not there; without, the same images are held out.

    Raises:
      UserError: --val_share beside --val_annotations or --data_dir; a split.csv of other images.
    """
    if flags.val_share is not None and (flags.val_annotations or flags.data_dir):
        given = "--val_annotations" if flags.val_annotations else "--data_dir"
        raise UserError(f"--val_share holds out images of --annotations, and {given} says which are scored: give one")
    sources = open_sources(
        flags.annotations,
        flags.classes,
        flags.val_annotations,
        flags.data_dir,
        source_format=flags.format,
        settings=config.reading(),
        image_folder=flags.images,
        val_image_folder=flags.val_images,
    )
    there, path = _read(flags.model_dir), os.path.join(flags.model_dir, SPLIT_FILE)
    if there is not None and (flags.val_annotations or flags.data_dir):
        given = "--val_annotations" if flags.val_annotations else "--data_dir"
        raise UserError(
            f"{path} tells which images of --annotations this run scores: leave {given} out, or give another "
            "--model_dir"
        )
    names, share = [image.name for image in sources.train], flags.val_share
    by_share = None if share is None else split_names(names, share, config.TrainSettings().seed)
    split = by_share if there is None else there
    if split is None:
        return sources
    if there is None and notes:
        write_atomically(path, to_csv(split))
    elif there is not None and by_share not in (None, there):
        log.warning("%s was there, and holds; --val_share=%g would divide otherwise", path, share)
    unknown = [name for name in names if name not in split]
    if unknown:
        raise UserError(
            f"{path} does not tell of {len(unknown)} images of --annotations, such as {unknown[0]}: add them, or give "
            "another --model_dir"
        )
    parts = {part: [one for one in sources.train if split[one.name] == part] for part in (TRAIN, VALIDATION)}
    empty = [part for part, images in parts.items() if not images]
    if empty:
        raise UserError(
            f"{path} leaves no image of --annotations for {empty[0]}: correct it, or give another --model_dir"
        )
    told = path if notes or there is not None else "as --val_share says"
    log.info("%d images are trained on and %d scored: %s", len(parts[TRAIN]), len(parts[VALIDATION]), told)
    return sources._replace(train=parts[TRAIN], validation=parts[VALIDATION])


def of_split(images: Sequence[AnnotatedImage], model_dir: str, part: str) -> Sequence[AnnotatedImage]:
    """Return the images that a run put into a part, where it divided these very images; else all.

    Args:
      images: to score.
      model_dir: of the run.
      part: "train" or "validation".

    Raises:
      UserError: another part.
    """
    split = _read(model_dir)
    if split is None or any(image.name not in split for image in images):
        return images
    if part not in (TRAIN, VALIDATION):
        raise UserError(f"--split={part}: {os.path.join(model_dir, SPLIT_FILE)} has {TRAIN} and {VALIDATION}")
    chosen = [image for image in images if split[image.name] == part]
    path = os.path.join(model_dir, SPLIT_FILE)
    log.info("%d of these %d images are scored, the %s part of %s (--split)", len(chosen), len(images), part, path)
    if not chosen:
        raise UserError(f"--split={part}: {path} has none of these images there")
    return chosen


def _read(model_dir: str) -> dict[str, str] | None:
    path = os.path.join(model_dir, SPLIT_FILE)
    return from_csv(read_text(path), path) if tf.io.gfile.exists(path) else None
