"""Find objects in images with a trained model.

  python -m tpu_retinamask.predict --images='photos/*.jpg' --model_dir=runs/mine --output_dir=out
  python -m tpu_retinamask.predict --images=photos,scans/a.tif --model_dir=runs/mine --output_dir=out
  retinamask predict a.jpg b.jpg --model_dir=runs/mine --output_dir=out --gin_param='predict.tile = 1024'

Writes one picture an image with masks, boxes, names and scores drawn over it, `predictions.json` (COCO
results, masks as run lengths in the original image's pixels; each says the names of its file and class, by which
`evaluate --predictions` matches it) and `images.json` (the file of each image id). An earlier output in the folder is
replaced as a whole, and nothing else there; `predictions.json` comes last, so that an output without it is unfinished.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Literal

import gin
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tpu_retinamask import config, signs_of_life
from tpu_retinamask.coco.names import with_names
from tpu_retinamask.data.annotated_image import AnnotatedImage, ListedImage
from tpu_retinamask.data.annotations.scan import scan_images
from tpu_retinamask.data.images.decode import apply_orientation, decode_image
from tpu_retinamask.data.images.finding import find_images
from tpu_retinamask.data.images.mask_reader import picture_bytes
from tpu_retinamask.data.sources.settings import SourceSettings
from tpu_retinamask.errors import UserError
from tpu_retinamask.evaluation.picture_folder import take_over
from tpu_retinamask.evaluation.pictures import draw_detections, save_picture
from tpu_retinamask.evaluation.results import write_results
from tpu_retinamask.evaluation.windows import decode_window
from tpu_retinamask.holding import held_file, held_folder
from tpu_retinamask.programs.command_line import Flags
from tpu_retinamask.programs.own_settings import checked
from tpu_retinamask.programs.runtime_choice import make_runtime
from tpu_retinamask.tasks import inference
from tpu_retinamask.tasks.tiles import Cutting, Tile, detect_in_tiles
from tpu_retinamask.training.runtimes.registry import Runtime

log = logging.getLogger(__name__)

RESULTS_FILE = "predictions.json"


@gin.configurable
@checked(batch_size=(1, None), draw_above=(0, 1), tile=(1, None), tile_overlap=(0, None))
def predict(
    images: str | Sequence[str],
    model_dir: str,
    output_dir: str,
    *,
    runtime: Runtime,
    checkpoint: str = "last",
    batch_size: int = 1,
    jit_compile: bool | None = None,
    draw_above: float = 0.5,
    on_bad_record: Literal["stop", "skip"] | None = None,
    tile: int | tuple[int, int] | None = None,
    tile_overlap: int | None = None,
) -> None:
    """Write the pictures and the results of a checkpoint on images.

    Args:
      images: files, folders and patterns; see `finding.find_images`.
      model_dir: written by train.
      output_dir: created where missing.
      runtime: executes detection.
      checkpoint: "last", "best" by mask AP, or a step.
      batch_size: images run at once.
      jit_compile: compile detection as one XLA program; None: as the training did its step.
      draw_above: least score that is drawn; predictions.json holds all.
      on_bad_record: in place of that of `source`; None: that holds.
      tile: side, or height and width, in pixels of the picture: larger pictures are looked at in tiles; None: whole.
      tile_overlap: pixels by which tiles lie over each other, the largest object; None: a quarter of the shorter side.
    """
    recipe, reading = config.recipe(), config.reading(on_bad_record=on_bad_record)
    cutting = Cutting.of(tile, tile_overlap)
    paths = _find(images)
    model, names = inference.load_model(model_dir, config.RetinaMask, recipe.pipeline.image_size, checkpoint=checkpoint)
    found = _scan(paths, reading)
    taken: set[str] = set()
    listed = [
        {
            "id": image.image_id,
            "file_name": image.name,
            "height": image.height,
            "width": image.width,
            "picture": picture_name(image.name, taken),
        }
        for image in found
    ]
    take_over(output_dir, "images.json", listed, flag="--output_dir", last=RESULTS_FILE, inputs=paths)
    compiled = recipe.train.compiles_detection(jit_compile)
    detector = inference.make_detector(model, recipe.detection_filter, jit_compile=compiled, runtime=runtime)
    category_ids = list(range(names.num_classes))
    tiles = {image.image_id: cutting.tiles(image.height, image.width) for image in found}
    whole = [image for image in found if len(tiles[image.image_id]) == 1]
    if cutting.tile is not None:
        log.info("%s: %d of %d pictures are cut, into %d", cutting, *_counts(tiles, found, whole))
    of_whole = (
        inference.detect_all(detector, recipe.pipeline.eval_dataset(whole, batch_size), category_ids)
        if whole
        else iter(())
    )
    everything = []
    categories = {number: names.name_of(number) for number in range(names.num_classes)}
    for image, entry in zip(tqdm(found, unit="image"), listed):
        picture = apply_orientation(decode_image(picture_bytes(image.image)), tf.constant(image.orientation)).numpy()
        image_id = image.image_id
        if len(tiles[image_id]) == 1:
            _, results = next(of_whole)
        else:
            results = detect_in_tiles(
                detector,
                recipe.pipeline,
                picture,
                tiles[image_id],
                image_id=image_id,
                batch_size=batch_size,
                category_ids=category_ids,
            )
        save_picture(os.path.join(output_dir, entry["picture"]), overlay(picture, results, names.names, draw_above))
        everything.extend(with_names(results, {image_id: image.name}, categories))
    write_results(os.path.join(output_dir, RESULTS_FILE), everything)
    drawn = sum(result["score"] >= draw_above for result in everything)
    log.info(
        "%d objects in %d images, %d of them drawn (score %g or more, predict.draw_above); pictures and "
        "predictions.json are in %s",
        len(everything),
        len(listed),
        drawn,
        draw_above,
        output_dir,
    )


def _find(images: str | Sequence[str]) -> list[str]:
    """Return the files that are meant, and say what was left out."""
    found = find_images(images)
    if found.left_out:
        log.info(
            "%d files are no images and left out: %s%s",
            len(found.left_out),
            ", ".join(map(os.path.basename, found.left_out[:5])),
            ", ..." if len(found.left_out) > 5 else "",
        )
    return found.paths


def _scan(paths: Sequence[str], reading: SourceSettings) -> Sequence[AnnotatedImage]:
    """Return the images that can be read."""
    listed = [ListedImage(image=path, name=path, line=line, instances=()) for line, path in enumerate(paths, 1)]
    policy = inference.orientation_of_new_pictures(reading)
    found = scan_images(
        listed, on_bad_record=reading.on_bad_record, exif_orientation=policy, pixels=reading.pixels
    ).images
    turned = sum(image.orientation != 1 for image in found)
    if turned:
        log.info(
            "%d pictures lie on their side, as their EXIF orientation says: boxes and masks are those of the upright "
            "pictures (source.exif_orientation='ignore' keeps the stored pixels)",
            turned,
        )
    return found


def _counts(tiles: Mapping[int, Sequence[Tile]], found: Sequence, whole: Sequence) -> tuple[int, int, int]:
    return len(found) - len(whole), len(found), sum(len(cut) for cut in tiles.values() if len(cut) > 1)


def overlay(image: np.ndarray, results: list[dict], names: Sequence[str | None], draw_above: float) -> np.ndarray:
    """Return the picture of one image's results."""
    corners = np.array([result["bbox"] for result in results], np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    masks = [
        decode_window(result["segmentation"])
        if result["score"] >= draw_above and result.get("segmentation") is not None
        else None
        for result in results
    ]
    return draw_detections(
        image,
        corners,
        masks,
        [result["category_id"] for result in results],
        [result["score"] for result in results],
        names,
        score_threshold=draw_above,
    )


def picture_name(path: str, taken: set) -> str:
    """Return a PNG name for an image file, unlike all names taken so far."""
    stem = os.path.splitext(os.path.basename(path))[0]
    name, number = f"{stem}.png", 1
    while name in taken:
        number += 1
        name = f"{stem}_{number}.png"
    taken.add(name)
    return name


def run(flags: Flags, *files: str) -> None:
    """Run the program."""
    signs_of_life.now(None)  # a bar shows how far it is
    if not files and not flags.images:
        raise UserError("give the pictures: --images=FOLDER, --images='photos/*.jpg', or files without a flag")
    config.parse_gin(flags.gin_file, flags.gin_param, model_dir=flags.model_dir, allow_imports=flags.allow_gin_imports)
    images = [*files, *([flags.images] if flags.images else [])]
    runtime = make_runtime(flags)
    with (
        held_folder(flags.output_dir, "predict", "--output_dir"),
        held_file(os.path.join(flags.output_dir, RESULTS_FILE), "predict", "--output_dir"),  # evaluate writes one, too
    ):
        predict(images, flags.model_dir, flags.output_dir, runtime=runtime, checkpoint=flags.checkpoint)
