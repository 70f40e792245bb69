"""Find objects in images with a trained model.

  python -m tpu_retinamask.predict --images='photos/*.jpg' --model_dir=runs/mine --output_dir=out

Writes one picture an image with masks, boxes, names and scores drawn over it, `predictions.json` (COCO
results, masks as run lengths in the original image's pixels) and `images.json` (the file of each image id).
"""

import logging
import os
from collections.abc import Sequence
from typing import Literal

import gin
import numpy as np
import tensorflow as tf
from pycocotools import mask as rle
from tqdm import tqdm

from tpu_retinamask import config
from tpu_retinamask.data.annotated_image import ListedImage
from tpu_retinamask.data.annotations.scan import scan_images
from tpu_retinamask.data.images.decode import apply_orientation, decode_image
from tpu_retinamask.errors import UserError
from tpu_retinamask.evaluation.pictures import draw_detections, save_picture
from tpu_retinamask.evaluation.results import write_results
from tpu_retinamask.files import write_json_atomically
from tpu_retinamask.programs.command_line import Flags
from tpu_retinamask.programs.own_settings import checked
from tpu_retinamask.programs.runtime_choice import make_runtime
from tpu_retinamask.tasks import inference
from tpu_retinamask.training.runtimes.registry import Runtime

log = logging.getLogger(__name__)


@gin.configurable
@checked(batch_size=(1, None), draw_above=(0, 1))
def predict(
    images: str,
    model_dir: str,
    output_dir: str,
    *,
    runtime: Runtime,
    checkpoint: str = "last",
    batch_size: int = 1,
    jit_compile: bool = True,
    draw_above: float = 0.5,
    on_bad_record: Literal["stop", "skip"] | None = None,
) -> None:
    """Write the pictures and the results of a checkpoint on all images that match a pattern.

    Args:
      images: glob pattern.
      model_dir: written by train.
      output_dir: created where missing.
      runtime: executes detection.
      checkpoint: "last", "best" by mask AP, or a step.
      batch_size: images run at once.
      jit_compile: compile detection as one XLA program.
      draw_above: least score that is drawn; predictions.json holds all.
      on_bad_record: in place of that of `source`; None: that holds.
    """
    recipe = config.recipe()
    paths = sorted(tf.io.gfile.glob(images))
    if not paths:
        raise UserError(f"--images {images}: no file matches. Quote the pattern, lest the shell expand it")
    model, names = inference.load_model(model_dir, config.RetinaMask, recipe.pipeline.image_size, checkpoint=checkpoint)
    listed = [ListedImage(image=path, name=path, line=line, instances=()) for line, path in enumerate(paths, 1)]
    reading = config.reading(on_bad_record=on_bad_record)
    found = scan_images(listed, on_bad_record=reading.on_bad_record, exif_orientation=reading.exif_orientation).images
    tf.io.gfile.makedirs(output_dir)
    detector = inference.make_detector(model, recipe.detection_filter, jit_compile=jit_compile, runtime=runtime)
    dataset = recipe.pipeline.eval_dataset(found, batch_size)
    everything, written, taken = [], [], set()
    for image, (image_id, results) in zip(
        tqdm(found, unit="image"), inference.detect_all(detector, dataset, list(range(names.num_classes)))
    ):
        picture = apply_orientation(decode_image(tf.io.read_file(image.name)), tf.constant(image.orientation)).numpy()
        name = picture_name(image.name, taken)
        save_picture(os.path.join(output_dir, name), overlay(picture, results, names.names, draw_above))
        everything.extend(results)
        written.append(
            {
                "id": image_id,
                "file_name": image.name,
                "height": image.height,
                "width": image.width,
                "picture": name,
            }
        )
    write_results(os.path.join(output_dir, "predictions.json"), everything)
    write_json_atomically(os.path.join(output_dir, "images.json"), written)
    drawn = sum(result["score"] >= draw_above for result in everything)
    log.info(
        "%d objects in %d images, %d of them drawn (score %g or more, predict.draw_above); pictures and "
        "predictions.json are in %s",
        len(everything),
        len(written),
        drawn,
        draw_above,
        output_dir,
    )


def overlay(image: np.ndarray, results: list[dict], names: Sequence[str | None], draw_above: float) -> np.ndarray:
    """Return the picture of one image's results."""
    drawn = [result for result in results if result["score"] >= draw_above]
    corners = np.array([result["bbox"] for result in drawn], np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    masks = np.zeros((len(drawn), *image.shape[:2]), bool)
    for mask, result in zip(masks, drawn):
        if result["segmentation"] is not None:
            mask[:] = rle.decode(result["segmentation"])
    return draw_detections(
        image,
        corners,
        masks,
        [result["category_id"] for result in drawn],
        [result["score"] for result in drawn],
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


def run(flags: Flags) -> None:
    """Run the program."""
    config.parse_gin(flags.gin_file, flags.gin_param, model_dir=flags.model_dir)
    predict(flags.images, flags.model_dir, flags.output_dir, runtime=make_runtime(flags), checkpoint=flags.checkpoint)
