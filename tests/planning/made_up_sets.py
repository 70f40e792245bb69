"""Ten data sets as a plan sees them, from few numbers each; no pictures."""

import numpy as np

from tpu_retinamask.planning.fingerprint import Fingerprint
from tpu_retinamask.planning.rules import Machine

CPU = Machine(device="cpu", replicas=1, memory=8 << 30, lite_weights=True)
BARE_CPU = Machine(device="cpu", replicas=1, memory=8 << 30, lite_weights=False)
GPU = Machine(device="gpu", replicas=1, memory=64 << 30, lite_weights=True)
TPU = Machine(device="tpu", replicas=8, memory=256 << 30, lite_weights=True)


def made_up(
    images,
    size,
    *,
    side,
    ratio=1.0,
    counts=(1, 5),
    classes=("thing",),
    masks=1.0,
    colours=1.0,
    turnable=False,
    other_shapes=0.0,
    validation=0,
):
    """Return a Fingerprint: sides of objects spread by a factor of two about `side` pixels, ratios by a third."""
    random = np.random.default_rng(images)
    sizes = np.tile(np.array(size, np.int32), (images, 1))
    turned = random.random(images) < other_shapes
    sizes[turned] = sizes[turned, ::-1]
    of_image = random.integers(counts[0], counts[1] + 1, images)
    of_image[0] = counts[1]
    picture = np.repeat(np.arange(images), of_image)
    sides = side * 2 ** random.uniform(-1, 1, len(picture))
    ratios = ratio * 1.33 ** random.uniform(-1, 1, len(picture))
    extent = np.stack([sides / np.sqrt(ratios), sides * np.sqrt(ratios)], axis=1)
    corner = random.random((len(picture), 2)) * np.maximum(sizes[picture][:, ::-1] - extent, 0)
    return Fingerprint(
        images=images,
        validation=validation,
        sizes=sizes,
        counts=of_image,
        boxes=np.concatenate([corner, corner + extent], axis=1),
        picture=picture,
        class_names=tuple(classes),
        mask_share=masks,
        colours=colours,
        turnable=turnable,
    )


# name: (what it looks like, machine, minutes, seconds of a step)
DATA_SETS = {
    "cells in a microscope": (
        made_up(140, (256, 256), side=16, counts=(5, 130), colours=0.2, turnable=True), CPU, 20, 1.4),
    "people in streets": (
        made_up(136, (360, 480), side=140, ratio=2.6, counts=(1, 8), other_shapes=0.1, validation=34), CPU, 20, 0.7),
    "fields from above": (
        made_up(60, (4000, 4000), side=260, counts=(3, 40), turnable=True), CPU, 60, 1.4),
    "fruits on trees": (
        made_up(100, (1280, 720), side=45, counts=(10, 120), validation=20), CPU, 20, 1.4),
    "one product, few pictures": (
        made_up(8, (1500, 2000), side=900, counts=(1, 1)), CPU, 10, 0.7),
    "everyday things, 80 classes": (
        made_up(5000, (480, 640), side=60, counts=(0, 30), classes=[f"class {i}" for i in range(80)],
                other_shapes=0.3, validation=500), GPU, 120, 0.2),
    "faults without masks": (
        made_up(300, (1024, 1024), side=70, counts=(0, 4), masks=0.0, colours=0.0, turnable=True), CPU, 30, 1.4),
    "digits on plates": (
        made_up(400, (200, 600), side=60, ratio=1.8, counts=(4, 8), classes=list("0123456789")), BARE_CPU, 20, 0.9),
    "a thousand stars": (
        made_up(40, (2048, 2048), side=8, counts=(200, 1000), colours=0.0, turnable=True), BARE_CPU, 60, 1.5),
    "a film, on a pod": (
        made_up(20_000, (1080, 1920), side=200, counts=(0, 20), classes=("car", "bus", "person")), TPU, 240, 0.15),
}  # fmt: skip
