"""A SavedModel that takes pictures of any size, as arrays or as files, and gives objects in the pictures' own pixels.

TensorFlow's loader and TF Serving run it; nothing of this package is needed there.
"""

import json
import os
from collections.abc import Callable

import tensorflow as tf

from tpu_retinamask.data.images.decode import decode_image
from tpu_retinamask.exporters.about import describe
from tpu_retinamask.exporters.new_output import new_folder, write_file
from tpu_retinamask.exporters.pasting import paste_masks
from tpu_retinamask.exporters.registry import EXPORTERS, TrainedModel
from tpu_retinamask.model.postprocess import detect
from tpu_retinamask.ops.boxes import pad_invalid

ABOUT_FILE = "about.json"


@EXPORTERS.register("saved_model")
def write_saved_model(trained: TrainedModel, output: str) -> None:
    """Write a SavedModel whose signatures are described in docs/export.md.

    Args:
      trained: what `inference.restore_model` restored.
      output: a new folder.

    Raises:
      UserError: the output is there already or cannot be written, or another precision is wanted.
    """
    trained.settings.check_float32("saved_model")
    with new_folder(output) as folder:
        about = os.path.join(folder, ABOUT_FILE)
        write_file(about, json.dumps(describe(trained), indent=1).encode())
        served = ServedModel(trained, about)
        tf.saved_model.save(served, folder, signatures=served.signatures())
        tf.io.gfile.remove(about)  # its copy lies among the assets


class ServedModel(tf.Module):
    """A trained model as functions of pictures.

    Of each picture they give, K rows with the best first: boxes [K, 4] inside it, scores [K], classes [K],
    masks [K', S, S] of the first K', probabilities inside mask_boxes [K, 4], which are the boxes before they were cut
    at the picture's border, and count; rows beyond count are -1, their masks 0.
    """

    def __init__(self, trained: TrainedModel, about_file: str) -> None:
        """Take a trained model, and the file that tells of it."""
        super().__init__(name="retinamask")
        self.variables_of_model = [variable.value for variable in trained.model.variables]
        self.about_file = tf.saved_model.Asset(about_file)
        self._trained, self._about = trained, json.dumps(describe(trained))
        self._detect = tf.function(self._run, autograph=False)  # traced once for all signatures

    def signatures(self) -> dict[str, Callable]:
        """Return a concrete function for each way to ask."""
        pictures = tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")
        files = tf.TensorSpec([None], tf.string, name="image_bytes")

        def concrete(function, *specs):
            return tf.function(function, autograph=False).get_concrete_function(*specs)

        images = concrete(self._of_images(self._objects), pictures)
        return {
            "serving_default": images,
            "images_pasted": concrete(self._of_images(self._with_pasted), pictures),
            "encoded": concrete(self._of_files(self._objects), files),
            "encoded_pasted": concrete(self._of_files(self._with_pasted), files),
            "about": concrete(lambda: {"about": tf.constant(self._about)}),
        }

    def _of_images(self, answer: Callable) -> Callable:
        def function(images):
            return answer(*self._fit(tf.shape(images)[0], lambda index: images[index]))

        return function

    def _of_files(self, answer: Callable) -> Callable:
        def function(image_bytes):
            return answer(*self._fit(tf.shape(image_bytes)[0], lambda index: decode_image(image_bytes[index])))

        return function

    def _fit(self, count, picture_of):
        """Return the canvases [B, H, W, 3], what of them is picture [B, 2], scales [B] and sizes of pictures [B, 2]."""
        pipeline = self._trained.pipeline
        shapes = [(tf.uint8, [*pipeline.image_size, 3]), (tf.int32, [2]), (tf.float32, []), (tf.int32, [2])]
        arrays = [tf.TensorArray(dtype, count, element_shape=shape) for dtype, shape in shapes]

        def one(index, arrays):
            picture = picture_of(index)
            parts = (*pipeline.fit(picture), tf.shape(picture)[:2])
            return index + 1, [array.write(index, part) for array, part in zip(arrays, parts)]

        _, arrays = tf.while_loop(lambda index, _: index < count, one, (0, arrays))
        return [array.stack() for array in arrays]

    def _run(self, canvases, content_size):
        return detect(self._trained.model, self._trained.detection_filter, canvases, content_size)

    def _objects(self, canvases, content_size, scale, size):
        found = self._detect(canvases, content_size)
        valid = found.classes >= 0
        whole = found.boxes / scale[:, None, None]
        limits = tf.cast(tf.reverse(size, [1]), tf.float32)  # [B, 2] as x, y
        inside = tf.clip_by_value(whole, 0.0, tf.concat([limits, limits], 1)[:, None])
        return {
            "boxes": pad_invalid(inside, valid),
            "scores": found.scores,
            "classes": found.classes,
            "masks": found.masks,
            "mask_boxes": pad_invalid(whole, valid),
            "count": tf.reduce_sum(tf.cast(valid, tf.int32), axis=1),
        }

    def _with_pasted(self, canvases, content_size, scale, size):
        objects = self._objects(canvases, content_size, scale, size)
        masks = objects["masks"]
        boxes = objects["mask_boxes"][:, : masks.shape[1]]
        return {**objects, "pasted_masks": paste_masks(masks, boxes, tf.reduce_max(size, axis=0))}
