"""Runs model.tflite; needs NumPy and ai-edge-litert, or TensorFlow, which has the same interpreter."""

import json
import os

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    import tensorflow as tf

    Interpreter = tf.lite.Interpreter

from tpu_retinamask.exporters.runners.fitting import FOLDER, detect_all, main


class Detector:
    """Finds objects in pictures, uint8 RGB [h, w, 3]."""

    def __init__(self, folder: str = FOLDER, threads: int | None = None) -> None:
        """Read the model."""
        with open(os.path.join(folder, "about.json")) as file:
            self.about = json.load(file)
        interpreter = Interpreter(os.path.join(folder, "model.tflite"), num_threads=threads)
        self.program = interpreter.get_signature_runner()

    def __call__(self, pictures: list) -> list:
        """Return what is found in each; see detect_all."""
        return detect_all(pictures, self.about, lambda image, size: self.program(image=image, content_size=size))


if __name__ == "__main__":
    main(Detector())
