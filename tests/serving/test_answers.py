"""The JSON of detections, by hand: boxes, outlines and run lengths in pixels of the picture."""

import numpy as np
import pytest
from pycocotools import mask as rle_codec
from serving.stand_ins import HEIGHT, WIDTH, detections

from tpu_retinamask.serving.answers import answer

# The left half of a square of 4 at 1, 1, outlined with its stairs cut, which of a rectangle are its corners; of these
# points some lie within 0.4 pixels of a line between others, and are left out.
OUTLINE = {(1.0, 1.5), (1.5, 1.0), (2.5, 1.0), (3.0, 1.5), (3.0, 4.5), (2.5, 5.0), (1.5, 5.0), (1.0, 4.5)}


def test_an_answer_by_hand():
    told = answer(detections((HEIGHT, WIDTH)), threshold=0.5, masks="both")
    assert (told["width"], told["height"], told["threshold"]) == (WIDTH, HEIGHT, 0.5)
    (found,) = told["detections"]  # the other scores 0.3
    assert (found["class"], found["class_id"], found["score"], found["box"]) == ("cell", 0, 0.9, [1.0, 1.0, 5.0, 5.0])
    (polygon,) = found["polygons"]
    assert {tuple(point) for point in polygon["outline"]} <= OUTLINE and polygon["holes"] == []
    outline = np.array(polygon["outline"])
    assert [*outline.min(0), *outline.max(0)] == [1.0, 1.0, 3.0, 5.0]
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[1:5, 1:3] = 1
    np.testing.assert_array_equal(rle_codec.decode(found["rle"]), mask)


@pytest.mark.parametrize("masks, names", [("polygons", {"polygons"}), ("rle", {"rle"}), ("none", set())])
def test_masks_are_told_as_asked(masks, names):
    told = answer(detections((HEIGHT, WIDTH)), threshold=0.0, masks=masks)
    assert [set(found) & {"polygons", "rle"} for found in told["detections"]] == [names, names]


def test_a_hole_an_empty_mask_and_no_object_at_all():
    found = detections((40, 40), scores=(0.9,))
    ring = np.ones((1, 10, 10), np.float32)
    ring[0, 3:7, 3:7] = 0
    box = np.array([[5, 5, 35, 35]], np.float32)
    (told,) = answer(found._replace(mask_probabilities=ring, mask_boxes=box), threshold=0, masks="polygons")[
        "detections"
    ]
    (polygon,) = told["polygons"]
    (hole,) = polygon["holes"]
    assert np.min(polygon["outline"]) == 5.0 and np.max(polygon["outline"]) == 35.0
    assert 13.0 <= np.min(hole) <= 15.0 and 25.0 <= np.max(hole) <= 27.0
    # Beyond DetectionFilter.max_masks.
    (told,) = answer(found._replace(mask_probabilities=0 * ring), threshold=0, masks="polygons")["detections"]
    assert told["polygons"] == []
    assert answer(detections((40, 40), scores=()), threshold=0, masks="both")["detections"] == []


def test_a_score_at_the_threshold_is_told():
    found = detections((HEIGHT, WIDTH), scores=(0.3,))
    assert len(answer(found, threshold=0.3, masks="none")["detections"]) == 1  # though 0.3 as float32 is above 0.3
    assert len(answer(found, threshold=0.30001, masks="none")["detections"]) == 0
