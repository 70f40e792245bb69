"""What the cases hold beside their texts: pictures, and a file of 150 objects."""

import json
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
from pycocotools import mask as coco_mask

INPUTS = Path(__file__).with_name("inputs")
TURNED = 6  # EXIF: to be turned clockwise by a quarter

# Pictures of a case in place of images/a.png and images/b.png; those of 01 lie on their side.
PICTURES = {
    "01_phone_exif": ("photos/IMG_0007.jpg", "photos/IMG_0008.jpg"),
    "08_same_name_two_folders": ("images/cam1/0001.png", "images/cam2/0001.png"),
    "25_predict_inputs": (
        *("photos/a.png", "photos/b.jpg", "photos/scan [2024].png", "photos/Grüße 猫.png"),
        *("upper/P1.JPG", "mixed/p.png"),
    ),
    "39_file_name_climbs_out": ("photos/a.jpg", "photos/a.png", "photos/b.jpg"),
}
NO_IMAGES = {
    "25_predict_inputs": {
        "mixed/Thumbs.db": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "mixed/notes.txt": b"seen on Tuesday",
        "mixed/sub/more.txt": b"nothing",
    },
    "39_file_name_climbs_out": {"labels/README": b"json lies here"},
}


def lay_out(case: str, root: Path) -> Path:
    """Copy a case's texts below a folder and make what else it holds; return its own folder."""
    folder = root / case
    shutil.copytree(INPUTS / case, folder)
    for number, name in enumerate(PICTURES.get(case, ("images/a.png", "images/b.png"))):
        _draw(folder / name, number, turned=case == "01_phone_exif")
    for name, content in NO_IMAGES.get(case, {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    if case == "30_150_objects_one_class":
        _many_objects(folder)
    return folder


def _draw(path: Path, number: int, *, turned: bool) -> None:
    """Write a picture of 128 x 96 pixels (width x height): noise, and the two ellipses that the cases outline."""
    pixels = np.random.default_rng(number).integers(0, 100, (96, 128, 3), dtype=np.uint8)
    y, x = np.mgrid[:96, :128]
    pixels[((x - 40) / 20) ** 2 + ((y - 32) / 20) ** 2 < 1] = (200, 80, 40)
    pixels[((x - 90) / 20) ** 2 + ((y - 45) / 25) ** 2 < 1] = (40, 90, 200)
    exif = PIL.Image.Exif()
    if turned:
        exif[274] = TURNED
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path, exif=exif)


def _many_objects(folder: Path) -> None:
    """Write 150 squares of one class in one picture, found perfectly: with masks, and by boxes alone."""
    boxes = [[4 + 12 * column, 4 + 12 * row, 9, 9] for row in range(10) for column in range(15)]
    annotations, results = [], []
    for number, (x, y, width, height) in enumerate(boxes):
        mask = np.zeros((130, 190), np.uint8, order="F")
        mask[y : y + height, x : x + width] = 1
        runs = coco_mask.encode(mask)
        runs["counts"] = runs["counts"].decode()
        common = {"image_id": 1, "category_id": 1, "bbox": [x, y, width, height]}
        outline = [x, y, x + width, y, x + width, y + height, x, y + height]
        annotations.append({"id": number + 1, "area": 81, "iscrowd": 0, "segmentation": [outline], **common})
        results.append({"score": round(0.99 - number / 1000, 3), "segmentation": runs, **common})
    truth = {
        "images": [{"id": 1, "file_name": "bars.png", "width": 190, "height": 130}],
        "categories": [{"id": 1, "name": "bar"}],
        "annotations": annotations,
    }
    boxes_alone = [{key: value for key, value in one.items() if key != "segmentation"} for one in results]
    for name, content in (("gt", truth), ("results", results), ("results_boxes", boxes_alone)):
        (folder / f"{name}.json").write_text(json.dumps(content))
