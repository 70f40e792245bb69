"""Time the training step of a torchvision detector on a GPU, on one fixed batch in memory, in bfloat16.

python torchvision_step.py maskrcnn_resnet50_fpn|retinanet_resnet50_fpn BATCH HEIGHT WIDTH
"""

import json
import sys
import time

import numpy as np
import torch
import torchvision

CLASSES, OBJECTS, STEPS, WARM_UP = 81, 50, 20, 8


def main() -> None:
    """Print a line of JSON."""
    name, (batch, height, width) = sys.argv[1], map(int, sys.argv[2:5])
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    model = getattr(torchvision.models.detection, name)(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES,
        min_size=min(height, width),
        max_size=max(height, width),
        trainable_backbone_layers=3,
    )
    model = model.cuda().train().to(memory_format=torch.channels_last)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-6, momentum=0.9, weight_decay=1e-4)
    random = np.random.default_rng(0)
    images = [torch.rand(3, height, width, device="cuda") for _ in range(batch)]
    targets = [objects(random, height, width) for _ in range(batch)]
    seconds = []
    for _ in range(WARM_UP + STEPS):
        torch.cuda.synchronize()
        started = time.perf_counter()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = sum(model(images, [dict(target) for target in targets]).values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    median = float(np.median(seconds[WARM_UP:]))
    figures = {
        "model": name,
        "batch": f"{batch} x {height} x {width}",
        "step_seconds": round(median, 4),
        "images_per_second": round(batch / median, 1),
        "peak_memory_gb": round(torch.cuda.max_memory_allocated() / 2**30, 2),
    }
    print(json.dumps(figures))


def objects(random: np.random.Generator, height: int, width: int) -> dict:
    """Return the annotations of one image."""
    corner = random.random((OBJECTS, 2)) * [width * 0.75, height * 0.75]
    side = 16 + random.random((OBJECTS, 2)) * [width / 4 - 16, height / 4 - 16]
    boxes = torch.tensor(np.concatenate([corner, corner + side], 1), dtype=torch.float32, device="cuda")
    masks = torch.zeros(OBJECTS, height, width, dtype=torch.uint8, device="cuda")
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist()):
        mask[y1:y2, x1:x2] = 1
    labels = torch.tensor(random.integers(1, CLASSES, OBJECTS), device="cuda")
    return {"boxes": boxes, "labels": labels, "masks": masks}


if __name__ == "__main__":
    main()
