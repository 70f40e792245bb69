"""Each of the ten plans trains ten steps, on four pictures made for it; minutes, so run by `make test-all`."""

import dataclasses

import gin
import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from planning.made_up_sets import DATA_SETS

from tpu_retinamask import config
from tpu_retinamask.data.annotated_image import AnnotatedImage, AnnotatedInstance
from tpu_retinamask.data.masks import PolygonMask
from tpu_retinamask.planning.rules import plan_network

PICTURES, LONGEST, STEPS = 4, 600, 10


def images_of(found, folder):
    """Write the first pictures of a fingerprint, none longer than LONGEST, with diamonds for objects."""
    images = []
    for number in range(PICTURES):
        height, width = found.sizes[number]
        scale = min(1.0, LONGEST / max(height, width))
        height, width = round(height * scale), round(width * scale)
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        path = folder / f"{number}.png"
        PIL.Image.fromarray(pixels).save(path)
        instances = []
        for line, box in enumerate(found.boxes[found.picture == number] * scale):
            x1, y1, x2, y2 = box = np.clip(box, 0, [width, height, width, height])
            if min(x2 - x1, y2 - y1) < 3:
                continue
            x, y = (x1 + x2) / 2, (y1 + y2) / 2
            mask = PolygonMask(((x, y1, x2, y, x, y2, x1, y),)) if found.mask_share else None
            instances.append(AnnotatedInstance(line, tuple(map(float, box)), line % len(found.class_names), mask))
        images.append(AnnotatedImage(str(path), path.name, number, height, width, 1, tuple(instances)))
    return images


@pytest.mark.slow
@pytest.mark.parametrize("name", DATA_SETS)
def test_ten_steps(name, tmp_path):
    found, machine, _, _ = DATA_SETS[name]
    plan = plan_network(found, machine)
    # The batch of an accelerator is no matter of its other settings; XLA's part is tested elsewhere.
    given = [f"train.batch_size = {PICTURES}", "train.jit_compile = False", "InputPipeline.cache = False"]
    try:
        config.parse_gin([], given, planned=plan.to_gin(20, ()))
        recipe = config.recipe()
    finally:
        gin.clear_config()
    images = images_of(found, tmp_path)
    assert sum(len(image.instances) for image in images) >= PICTURES - 1
    keras.utils.set_random_seed(0)
    learner = recipe.make_learner(
        tf.distribute.get_strategy(), len(found.class_names), total_steps=STEPS, batch_size=PICTURES
    )
    step = tf.function(learner.make_step(), autograph=False)
    pipeline = dataclasses.replace(recipe.pipeline, seed=1)
    losses = [float(step(batch)["loss"]) for batch in pipeline.train_dataset(images, PICTURES).take(STEPS)]
    assert len(losses) == STEPS and np.isfinite(losses).all()
    assert min(losses[-3:]) < losses[0], losses
