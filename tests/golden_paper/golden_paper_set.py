"""Numbers of the paper's own code: from the folder that GOLDEN_PAPER_DIR names, or from the copy beside this file."""

import os
from pathlib import Path

import numpy as np

COPY = Path(__file__).resolve().parent
FOLDER = Path(os.environ.get("GOLDEN_PAPER_DIR") or COPY).resolve()


def load(name: str) -> dict[str, np.ndarray]:
    """Return the arrays of `name`.npz."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}
