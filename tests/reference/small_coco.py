"""A small COCO file of two pictures: its parts, and how tests read it."""

from tpu_retinamask.data.sources.opening import open_images, read_source
from tpu_retinamask.data.sources.registry import ReadOptions
from tpu_retinamask.data.sources.settings import SourceSettings

HEIGHT, WIDTH = 96, 128
DISC = [60, 32, 57, 42, 50, 49, 40, 52, 30, 49, 23, 42, 20, 32, 23, 22, 30, 15, 40, 12, 50, 15, 57, 22]
SQUARE = [70, 20, 110, 20, 110, 70, 70, 70]


def entry(number, image=1, category=1, box=(20, 12, 40, 40), segmentation=None, **more):
    """An annotation of a disc, or of a square where the box begins at 70."""
    if segmentation is None:
        segmentation = (SQUARE,) if box and float(box[0]) == 70 else (DISC,)
    return {
        "id": number, "image_id": image, "category_id": category, "bbox": list(box), "area": 9, "iscrowd": 0,
        "segmentation": list(segmentation), **more,
    }  # fmt: skip


def read(path, classes=None, **settings):
    """Read without opening the images."""
    folder = path.replace("instances.json", "images")
    return read_source(path, classes, None, ReadOptions(SourceSettings(**settings), folder))


def opened(path, **settings):
    """Read and open the images."""
    folder = path.replace("instances.json", "images")
    return open_images(path, None, None, settings=SourceSettings(**settings), image_folder=folder)


def boxes(content):
    return [instance.box for image in content.images for instance in image.instances]


PLAIN = [(20.0, 12.0, 60.0, 52.0), (70.0, 20.0, 110.0, 70.0)]
