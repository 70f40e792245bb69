"""Find objects in images with a trained model.

  python -m tpu_retinamask.predict --images='photos/*.jpg' --model_dir=runs/mine --output_dir=out
  python -m tpu_retinamask.predict --images=photos,scans/a.tif --model_dir=runs/mine --output_dir=out
  retinamask predict a.jpg b.jpg --model_dir=runs/mine --output_dir=out --gin_param='predict.tile = 1024'

Writes one picture an image with masks, boxes, names and scores drawn over it, `predictions.json` (COCO
results, masks as run lengths in the original image's pixels; each says the names of its file and class, by which
`evaluate --predictions` matches it) and `images.json` (the file of each image id). An earlier output in the folder is
replaced as a whole, and nothing else there; `predictions.json` comes last, so that an output without it is unfinished.
What else it writes, `--formats` says: pictures (those), labelme (to be corrected there and trained on), label_map
(PNG), geojson (polygons), csv (annotations that training reads), or one that a gin file imports; they hold what scores
`--threshold` or more.
"""

import functools
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Literal

import gin
from tqdm import tqdm

from tpu_retinamask import config, signs_of_life
from tpu_retinamask.coco.names import with_names
from tpu_retinamask.data.annotated_image import AnnotatedImage, ListedImage
from tpu_retinamask.data.annotations.class_names import ClassNames, read_classes
from tpu_retinamask.data.annotations.scan import scan_images
from tpu_retinamask.data.images.finding import find_images
from tpu_retinamask.data.images.upright import upright_pixels
from tpu_retinamask.data.sources.settings import SourceSettings
from tpu_retinamask.data.stream.canvases import scored_parts
from tpu_retinamask.errors import SettingError, UserError
from tpu_retinamask.evaluation.class_thresholds import read_thresholds
from tpu_retinamask.evaluation.picture_folder import take_over
from tpu_retinamask.evaluation.results import RESULTS_FILE
from tpu_retinamask.holding import held_file, held_folder
from tpu_retinamask.prediction_formats import (  # noqa: F401  # take their seats
    coco_results,
    csv_rows,
    geojson,
    label_maps,
    labelme,
    overlays,
)
from tpu_retinamask.prediction_formats.registry import FORMATS, Output, PredictedPicture, files_of, objects_of
from tpu_retinamask.programs.command_line import Flags
from tpu_retinamask.programs.own_settings import checked
from tpu_retinamask.programs.runtime_choice import make_runtime
from tpu_retinamask.tasks import inference
from tpu_retinamask.tasks.tiles import Cutting, Tile, detect_in_tiles
from tpu_retinamask.training.runtimes.registry import Runtime

log = logging.getLogger(__name__)


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
    draw_above: float | tuple[float, ...] = 0.5,
    formats: tuple[str, ...] = ("pictures",),
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
      draw_above: least score that is drawn and goes into `formats`, one for all classes or one for each in the order of
        their ids; predictions.json holds all.
      formats: what is written beside predictions.json and images.json; names of `prediction_formats.registry`.
      on_bad_record: in place of that of `source`; None: that holds.
      tile: side, or height and width, in pixels of the picture: larger pictures are looked at in tiles; None: whole.
      tile_overlap: pixels by which tiles lie over each other, the largest object; None: a quarter of the shorter side.
    """
    recipe, reading = config.recipe(), config.reading(on_bad_record=on_bad_record)
    cutting = Cutting.of(tile, tile_overlap)
    # The list of all results comes last: where it is, the others are.
    writes = [FORMATS.get(name) for name in [*dict.fromkeys(name for name in formats if name != "coco"), "coco"]]
    paths = _find(images)
    model, names = inference.load_model(
        model_dir, config.RetinaMask, recipe.pipeline.largest_canvas, checkpoint=checkpoint
    )
    found = _scan(paths, reading)
    taken: set[str] = set()
    stems = [picture_stem(image.name, taken) for image in found]
    least, of_class = _least_of(draw_above, names)
    output = Output(output_dir, names, least, stems, of_class)
    writers = [write(output) for write in writes]
    listed = [
        {
            "id": image.image_id,
            "file_name": image.name,
            "height": image.height,
            "width": image.width,
            **({"picture": f"{stem}.png"} if "pictures" in formats else {}),
            "files": [name for writer in writers for name in files_of(writer, stem)],
        }
        for image, stem in zip(found, stems)
    ]
    take_over(
        output_dir,
        "images.json",
        listed,
        flag="--output_dir",
        last=RESULTS_FILE,
        inputs=paths,
        as_written=labelme.as_written,
    )
    compiled = recipe.train.compiles_detection(jit_compile)
    detector = inference.make_detector(model, recipe.detection_filter, jit_compile=compiled, runtime=runtime)
    category_ids = list(range(names.num_classes))
    tiles = {image.image_id: cutting.tiles(image.height, image.width) for image in found}
    whole = [image for image in found if len(tiles[image.image_id]) == 1]
    if cutting.tile is not None:
        log.info("%s: %d of %d pictures are cut, into %d", cutting, *_counts(tiles, found, whole))
    of_whole = {}  # of each picture the detections of its canvas, whose pictures come in order
    for part in scored_parts(recipe.pipeline, whole) if whole else ():
        dataset = part.pipeline.eval_dataset(part.images, batch_size)
        of_canvas = inference.detect_all(detector, dataset, category_ids)
        of_whole |= dict.fromkeys((image.image_id for image in part.images), of_canvas)
    drawn, flat, count = 0, 0, 0
    categories = {number: names.name_of(number) for number in range(names.num_classes)}
    for image, stem in zip(tqdm(found, unit="image"), stems):
        pixels = functools.cache(functools.partial(upright_pixels, image))
        image_id, size = image.image_id, (image.height, image.width)
        if len(tiles[image_id]) == 1:
            _, results = next(of_whole[image_id])
        else:
            results = detect_in_tiles(
                detector,
                recipe.pipeline,
                pixels(),
                tiles[image_id],
                image_id=image_id,
                batch_size=batch_size,
                category_ids=category_ids,
            )
        results = with_names(results, {image_id: image.name}, categories)
        objects, without_area = objects_of(results, output, *size)
        for writer in writers:
            writer.add(PredictedPicture(image_id, image.name, stem, *size, pixels, results, objects))
        count, drawn, flat = count + len(results), drawn + len(objects) + without_area, flat + without_area
    for writer in writers:
        writer.finish()
    if flat:
        log.warning("%d objects have no area inside their picture: predictions.json alone lists them", flat)
    log.info(
        "%d objects in %d images, %d of them drawn (%s); %s and predictions.json are in %s",
        count,
        len(listed),
        drawn,
        f"score {draw_above:g} or more: --threshold"
        if isinstance(draw_above, int | float)
        else f"score {min(draw_above):.3g} to {max(draw_above):.3g} or more, by class: --thresholds",
        ", ".join(name for name in formats if name != "coco") or "images.json",
        output_dir,
    )


def _least_of(draw_above: float | Sequence[float], names: ClassNames) -> tuple[float, tuple[float, ...]]:
    """Return the threshold of all classes and, where each has its own, these.

    Raises:
      SettingError: there are not as many as classes.
    """
    if isinstance(draw_above, int | float):
        return draw_above, ()
    if len(draw_above) != names.num_classes:
        raise SettingError(
            f"predict.draw_above has {len(draw_above)} numbers, expected one, or one for each of {names.num_classes} "
            "classes"
        )
    return min(draw_above), tuple(draw_above)


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


def picture_stem(path: str, taken: set) -> str:
    """Return a name for the files of an image, without a suffix, unlike all names taken so far."""
    stem = os.path.splitext(os.path.basename(path))[0]
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
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
    formats = None if flags.formats is None else tuple(flags.formats)
    if flags.thresholds and flags.threshold is not None:
        raise UserError("--thresholds has the least score of each class, --threshold one for all: give one of them")
    least = flags.threshold
    if flags.thresholds:
        least = read_thresholds(flags.thresholds, read_classes(os.path.join(flags.model_dir, inference.CLASSES_FILE)))
    said = {"draw_above": least, "formats": formats}
    with (
        held_folder(flags.output_dir, "predict", "--output_dir"),
        held_file(os.path.join(flags.output_dir, RESULTS_FILE), "predict", "--output_dir"),  # evaluate writes one, too
    ):
        predict(
            images,
            flags.model_dir,
            flags.output_dir,
            runtime=runtime,
            checkpoint=flags.checkpoint,
            **{name: value for name, value in said.items() if value is not None},
        )
