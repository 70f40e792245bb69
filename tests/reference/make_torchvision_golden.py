"""Write tests/golden_torchvision/features.npz: what torchvision's detectors compute from `named_weights`.

Run by hand where torch and torchvision are installed (tried: 2.13.0, 0.28.0); tests need neither.
"""

import json
import pathlib

import numpy as np
import torch
import torchvision
from named_weights import picture, weights_named

MEAN, DEVIATION = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def _with_weights(model):
    names = {name: tuple(value.shape) for name, value in model.state_dict().items() if value.ndim}
    names = {name: shape for name, shape in names.items() if not name.startswith(("roi_heads.box", "rpn"))}
    tensors = {name: torch.from_numpy(array) for name, array in weights_named(names).items()}
    model.load_state_dict(tensors, strict=False)
    return model.eval(), names


def main():
    image = torch.from_numpy(((np.float32(picture()) / 255 - MEAN) / DEVIATION).transpose(0, 3, 1, 2).copy())
    golden = {}
    with torch.no_grad():
        for name in ("retinanet_resnet50_fpn", "maskrcnn_resnet50_fpn"):
            model, shapes = _with_weights(
                getattr(torchvision.models.detection, name)(weights=None, weights_backbone=None)
            )
            golden[f"{name}/shapes"] = np.array(json.dumps(shapes))
            levels = model.backbone(image)
            body = model.backbone.body(image)
            for key, value in (*((f"C{k}", v) for k, v in body.items()), *((f"P{k}", v) for k, v in levels.items())):
                golden[f"{name}/{key}"] = value.numpy().transpose(0, 2, 3, 1)[..., ::16]
        maps = torch.from_numpy(np.random.default_rng(8).normal(size=(2, 256, 14, 14)).astype(np.float32))
        golden["maskrcnn_resnet50_fpn/mask_features"] = torch.relu(
            model.roi_heads.mask_predictor.conv5_mask(model.roi_heads.mask_head(maps))
        ).numpy().transpose(0, 2, 3, 1)[..., ::16]  # fmt: skip
    folder = pathlib.Path(__file__).resolve().parents[1] / "golden_torchvision"
    np.savez_compressed(folder / "features.npz", **golden)


if __name__ == "__main__":
    main()
