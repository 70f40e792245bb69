"""Find objects in images with a trained model.

  python -m tpu_retinamask.predict --images='photos/*.jpg' --model_dir=runs/mine --output_dir=out

Writes one picture an image with masks, boxes, names and scores drawn over it, `predictions.json` (COCO
results, masks as run lengths in the original image's pixels) and `images.json` (the file of each image id).
"""

import os

import numpy as np
import tensorflow as tf
from absl import flags
from pycocotools import mask as rle
from tqdm import tqdm

import gin
from tpu_retinamask import (
    config,  # first: it quiets TensorFlow's start-up
    inference,
)
from tpu_retinamask.data.annotations.csv_annotations import ImageRecord
from tpu_retinamask.data.annotations.scan import scan_records
from tpu_retinamask.data.images.decode import apply_orientation, decode_image
from tpu_retinamask.evaluation.pictures import draw_detections, save_picture
from tpu_retinamask.evaluation.results import write_results
from tpu_retinamask.files import write_json_atomically

FLAGS = flags.FLAGS


@gin.configurable
def predict(
    images: str,
    model_dir: str,
    output_dir: str,
    *,
    checkpoint: str = "last",
    batch_size: int = 1,
    jit_compile: bool = True,
    draw_above: float = 0.5,
    on_bad_record: str = "stop",
):
    """Write the pictures and the results of a checkpoint on all images that match a pattern.

    Args:
      images: glob pattern.
      model_dir: written by train.
      output_dir: created where missing.
      checkpoint: "last", "best" by mask AP, or a step.
      batch_size: images run at once.
      jit_compile: compile detection as one XLA program.
      draw_above: least score that is drawn; predictions.json holds all.
      on_bad_record: "stop" at a file that cannot be read, or "skip" it, counted.
    """
    paths = sorted(tf.io.gfile.glob(images))
    if not paths:
        raise config.UserError(f"--images {images}: no file matches. Quote the pattern, lest the shell expand it")
    model, names = inference.load_model(model_dir, config.RetinaMask, checkpoint=checkpoint)
    found = [ImageRecord(image=path, name=path, line=line, instances=()) for line, path in enumerate(paths, 1)]
    records = scan_records(found, on_bad_record=on_bad_record).records
    tf.io.gfile.makedirs(output_dir)
    detector = inference.make_detector(model, config.DetectionFilter(), jit_compile=jit_compile)
    dataset = config.InputPipeline().eval_dataset(records, batch_size)
    everything, listed, taken = [], [], set()
    for record, (image_id, results) in zip(
        tqdm(records, unit="image"), inference.detect_all(detector, dataset, list(range(names.num_classes)))
    ):
        image = apply_orientation(decode_image(tf.io.read_file(record.image)), tf.constant(record.orientation)).numpy()
        name = picture_name(record.image, taken)
        save_picture(os.path.join(output_dir, name), overlay(image, results, names.names, draw_above))
        everything.extend(results)
        listed.append(
            {"id": image_id, "file_name": record.image, "height": record.height, "width": record.width, "picture": name}
        )
    write_results(os.path.join(output_dir, "predictions.json"), everything)
    write_json_atomically(os.path.join(output_dir, "images.json"), listed)
    drawn = sum(result["score"] >= draw_above for result in everything)
    config.log.info(
        "%d objects in %d images, %d of them drawn (score %g or more, predict.draw_above); pictures and "
        "predictions.json are in %s",
        len(everything),
        len(listed),
        drawn,
        draw_above,
        output_dir,
    )


def overlay(image, results, names, draw_above: float):
    """Return the picture of one image's results."""
    drawn = [result for result in results if result["score"] >= draw_above]
    corners = np.array([result["bbox"] for result in drawn], np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    masks = np.array([rle.decode(result["segmentation"]) for result in drawn], bool).reshape(-1, *image.shape[:2])
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


def main():
    """Run the program."""
    config.parse_gin(FLAGS.gin_file, FLAGS.gin_param, model_dir=FLAGS.model_dir)
    predict(FLAGS.images, FLAGS.model_dir, FLAGS.output_dir, checkpoint=FLAGS.checkpoint)


if __name__ == "__main__":
    flags.DEFINE_string("images", None, "Glob pattern of image files, quoted.", required=True)
    flags.DEFINE_string("model_dir", None, "Folder written by train.", required=True)
    flags.DEFINE_string("output_dir", None, "Folder for the pictures and predictions.json.", required=True)
    flags.DEFINE_string("checkpoint", "last", "Which weights: last, best (by mask AP, as train scored them) or a step.")
    config.define_gin_flags()
    config.run_program(main)
