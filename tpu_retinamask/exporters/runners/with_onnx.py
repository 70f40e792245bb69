"""Runs model.onnx; needs NumPy and onnxruntime."""

import json
import os

import onnxruntime

from tpu_retinamask.exporters.runners.fitting import FOLDER, detect_all, main


class Detector:
    """Finds objects in pictures, uint8 RGB [h, w, 3]."""

    def __init__(self, folder: str = FOLDER) -> None:
        """Read the model."""
        self.session = onnxruntime.InferenceSession(
            os.path.join(folder, "model.onnx"), providers=onnxruntime.get_available_providers()
        )
        self.about = json.loads(self.session.get_modelmeta().custom_metadata_map["about"])

    def __call__(self, pictures: list) -> list:
        """Return what is found in each; see detect_all."""
        names = self.about["outputs"]

        def run(image, content_size):
            given = {"image": image, "content_size": content_size}
            return dict(zip(names, self.session.run(names, given)))

        return detect_all(pictures, self.about, run)


if __name__ == "__main__":
    main(Detector())
