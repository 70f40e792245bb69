"""Pascal VOC: files as the data set and LabelImg write them, and what is wrong with others."""

import pathlib

import numpy as np
import PIL.Image
import pytest

from tpu_retinamask.data.annotations.scan import scan_images
from tpu_retinamask.data.images.mask_reader import read_mask


def thing(name="cat", box=(11, 21, 40, 60), more=""):
    edges = "".join(f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box))
    return (
        f"<object><name>{name}</name><pose>Left</pose><truncated>1</truncated>{more}<bndbox>{edges}</bndbox></object>"
    )


@pytest.fixture
def voc(save, picture, tmp_path):
    """Write a VOC file and its picture; return the folder of the set."""

    def write_file(*things, name="2007_000001", size=(100, 80), filename=None):
        picture(f"voc/JPEGImages/{name}.jpg")
        text = f"<annotation><folder>VOC2007</folder><filename>{filename or name + '.jpg'}</filename>"
        text += f"<size><width>{size[0]}</width><height>{size[1]}</height></size>{''.join(things)}</annotation>"
        save(f"voc/Annotations/{name}.xml", text)
        return str(tmp_path / "voc")

    return write_file


def indices(folder, values, name="2007_000001"):
    folder = pathlib.Path(folder, "SegmentationObject")
    folder.mkdir(exist_ok=True)
    picture = PIL.Image.frombytes("P", values.shape[::-1], values.tobytes())
    picture.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    picture.save(folder / f"{name}.png")


def test_pixels_from_1_to_the_last_become_half_open_from_0(voc, objects, read):
    path = voc(thing(), thing("dog", (1, 1, 100, 80), "<difficult>1</difficult>"))
    assert objects(path) == [[("cat", (10, 20, 40, 60), None), ("dog", (0, 0, 100, 80), None)]]
    assert read(path).notes == (
        "boxes were taken for pixels counted from 1, as Pascal VOC counts them: x1 = xmin - 1, x2 = xmax",
        "1 objects are marked as difficult, and are objects like others",
    )


def test_edges_from_0_are_taken_as_they_are_in_the_whole_folder(voc, objects, read):
    voc(thing("cat", (0, 0, 100, 80)), name="a")
    path = voc(thing("dog", (10.5, 20, 40, 60)), name="b")
    assert objects(path) == [[("cat", (0, 0, 100, 80), None)], [("dog", (10.5, 20, 40, 60), None)]]
    assert "boxes begin at 0, so they were taken for edges" in read(path).notes[0]


def test_a_folder_as_labelimg_leaves_it(save, picture, read):
    picture("set/a.png")
    text = "<annotation><folder>set</folder><filename>moved.png</filename><path>C:\\set\\moved.png</path>"
    text += f"<source><database>Unknown</database></source>{thing()}</annotation>"
    path = save("set/a.xml", text)
    (image,) = read(pathlib.Path(path).parent).images
    assert image.image.endswith("set/a.png") and image.instances[0].box == (10, 20, 40, 60)


def test_palette_indices_number_the_objects_in_their_order(voc, read):
    path = voc(thing("cat", (1, 1, 20, 10)), thing("dog", (11, 1, 30, 10)))
    values = np.zeros((80, 100), np.uint8)
    values[0:10, 0:14], values[0:10, 15:30], values[0:10, 14:15] = 1, 2, 255
    indices(path, values)
    (image,) = scan_images(read(path).images).images
    masks = [read_mask(found, 80, 100) for found in image.instances]
    assert masks[0][:10, :14].all() and masks[0].sum() == 140
    assert masks[1][:10, 15:30].all() and masks[1].sum() == 150


def test_an_object_that_the_segmentation_lacks_is_told_by_the_scan(voc, read):
    path = voc(thing("cat", (1, 1, 20, 10)), thing("dog", (11, 1, 30, 10)))
    indices(path, np.ones((80, 100), np.uint8))
    with pytest.raises(ValueError, match=r"SegmentationObject/2007_000001.png has no pixel of"):
        scan_images(read(path).images)
    indices(path, np.ones((8, 10), np.uint8))
    with pytest.raises(ValueError, match="has 10 x 8 pixels, its image 100 x 80"):
        scan_images(read(path).images)
    pathlib.Path(path, "SegmentationObject", "2007_000001.png").write_bytes(b"\x89PNG\r\n\x1a\nxxxx")
    with pytest.raises(ValueError, match="2007_000001.png: not an image that can be decoded"):
        scan_images(read(path).images)


def test_image_sets_choose_the_pictures(voc, save, read, wrong):
    for name in ("a", "b", "c"):
        path = voc(thing(), name=name)
    save("voc/ImageSets/Main/train.txt", "c\na\n")
    save("voc/ImageSets/Segmentation/train.txt", "b\n")
    save("voc/ImageSets/Main/val.txt", "b\nz\n")
    assert [image.name for image in read(f"{path}#train").images] == ["c.jpg", "a.jpg"]
    assert [image.name for image in read(f"{path}#Segmentation/train").images] == ["b.jpg"]
    assert len(read(path).images) == 3
    assert "val.txt: 1 of its pictures have no XML file, such as 'z'" in wrong(f"{path}#val")
    with pytest.raises(FileNotFoundError, match="no image set 'test'"):
        read(f"{path}#test")


@pytest.mark.parametrize(
    "text, message",
    [
        (thing(""), "object 1: name: got '', expected the name of a class"),
        ("<object><name>cat</name></object>", "object 1: bndbox: got nothing, expected xmin"),
        (thing(box=(11, 21, "x", 60)), "object 1: bndbox: xmax: got 'x', expected a number of pixels"),
        (thing(box=(11, 21, 60)), "object 1: bndbox: ymax: got nothing, expected a number of pixels"),
        (thing(box=(50, 21, 40, 60)), "object 1: got the extent 49, 20, 40, 60, expected one with an area"),
    ],
)
def test_what_is_wrong_is_named(text, message, voc, wrong):
    said = wrong(voc(text, thing()))
    assert "1 bad entries" in said and f"2007_000001.xml, {message}" in said


def test_other_files_and_sizes(voc, save, wrong, read):
    path = voc(thing(), size=(80, 100))
    assert "drawn on a picture of 80 x 100 pixels" in wrong(path)
    assert len(read(voc(thing(), size=(0, 0))).images) == 1
    save("voc/Annotations/b.xml", "<annotation><object>")
    save("voc/Annotations/c.xml", "<other/>")
    said = wrong(path)
    assert "b.xml: not an XML file" in said and "c.xml: got the element <other>, expected <annotation>" in said
    gone = voc(thing(), name="gone")
    pathlib.Path(gone, "JPEGImages", "gone.jpg").unlink()
    assert "gone.xml: filename: got 'gone.jpg', expected a picture" in wrong(gone)
