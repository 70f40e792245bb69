"""Runs program.jax by jax, on whatever device it finds; needs jax and NumPy."""

import json
import os

import jax
import numpy as np

from tpu_retinamask.exporters.runners.fitting import FOLDER, detect_all, main


class Detector:
    """Finds objects in pictures, uint8 RGB [h, w, 3]."""

    def __init__(self, folder: str = FOLDER) -> None:
        """Read the program and its weights."""
        with open(os.path.join(folder, "about.json")) as file:
            self.about = json.load(file)
        with open(os.path.join(folder, "program.jax"), "rb") as file:
            self.program = jax.jit(jax.export.deserialize(bytearray(file.read())).call)
        with np.load(os.path.join(folder, "weights.npz")) as arrays:
            self.weights = jax.device_put([arrays[name] for name in self.about["weights"]])

    def __call__(self, pictures: list) -> list:
        """Return what is found in each; see detect_all."""
        return detect_all(pictures, self.about, lambda image, content: self.program(image, content, self.weights))


if __name__ == "__main__":
    main(Detector())
