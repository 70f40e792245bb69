"""What a network is made of: the settings of RetinaMask."""

import dataclasses
import re

import keras

from tpu_retinamask.errors import SettingError
from tpu_retinamask.model.backbones.registry import BACKBONES
from tpu_retinamask.model.layers.convolution import PADDINGS
from tpu_retinamask.model.layers.normalization import AFTER, check_normalization
from tpu_retinamask.ops.anchors import ROUNDINGS, AnchorGrid
from tpu_retinamask.ops.images import MODES as PIXEL_MODES
from tpu_retinamask.setting_types import check_least, check_types, named

BOX_CODERS = ("center", "corner")
ROI_SEMANTICS = ("aligned", "crop_and_resize")
ROI_IMPLEMENTATIONS = ("auto", "gather", "matmul")
MASK_UPSAMPLES = ("deconv", "nearest")
DTYPES = ("float32", "mixed_bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Settings of the network; gin knows them as `RetinaMask`.

    Attributes:
      backbone: name of one in the seat `backbones.registry.BACKBONES`.
      backbone_options: further arguments of the backbone.
      normalization: "frozen", "batch" or "group"; see `layers.normalization`. A backbone without such layers
        does not ask for it.
      frozen_stages: first stages of the backbone that are not trained: 1 the stem, 2 the stem and C2, to 5.
      freeze: regular expressions; layers in whose path one is found are not trained either ("backbone", "fpn",
        "^pyramid_"); see `freeze`.
      padding: zeros around what convolutions of stride 2 see: "symmetric", the same on every canvas, or "same", which
        lays their windows half a cell further on even sides (keras-maskrcnn); see `layers.convolution.StridedConv2D`.
      mask_padding: features beside the picture are held at zero and no statistic counts them, so that a picture has the
        same detections on every canvas; False: they are computed like the rest (both originals).
      pixel_mode: "caffe", "tf" or "torch"; see `ops.images`.
      anchor_sizes: side of the anchors of P3, P4, ... in canvas pixels; their number is the number of pyramid levels (3
        to 5).
      anchor_ratios: height / width.
      anchor_scales: multiples of the sizes.
      anchor_rounding: "none", or "cell", whole pixels in the cell (the paper's code); see `ops.anchors.AnchorGrid`.
      box_coder: "center" (shift and log size, the paper) or "corner" (keras-retinanet).
      fpn_channels: F.
      p6_from: "p5" (the paper) or "c5".
      head_channels: of the class and box heads.
      head_depth: hidden convolutions of the class and box heads.
      head_normalization: after each convolution of the pyramid, of the class and the box head: "none" (the paper), or
        "group", by image and level, with which new heads learn from few steps.
      head_initializer: "normal" is N(0, 0.01); narrow heads want "he_normal", or another that Keras has by name.
      mask_channels: of the mask head.
      mask_depth: hidden convolutions of the mask head.
      mask_upsample: "deconv" (the paper) or "nearest"; see `heads.MaskHead`.
      roi_size: P, bins a side; masks have 2P.
      roi_levels: pyramid levels that regions are taken from, P3 upwards.
      roi_semantics: "aligned" or "crop_and_resize"; see `ops.roi_align`.
      roi_sampling_ratio: samples a bin and axis of "aligned".
      roi_implementation: "gather" or "matmul", the same numbers at another speed; "auto": "gather" where the
        program is for a CPU, "matmul" for a TPU, which has no fast gather, and a GPU, whose scatters are slow.
      stop_mask_gradient: the mask loss trains the mask head alone, not the features it samples (keras-maskrcnn).
      dtype: "float32" or "mixed_bfloat16" (float32 weights, bfloat16 convolutions).

    Raises:
      SettingError: a value of another type, or none of those that there are. What a part of the network alone can judge
        (patterns that no layer has) is refused when the network is made.
    """

    # Backbone
    backbone: str = "resnet50"
    backbone_options: dict | None = None
    normalization: str = "frozen"
    frozen_stages: int = 0
    freeze: str | tuple[str, ...] = ()
    padding: str = "symmetric"
    mask_padding: bool = True
    pixel_mode: str = "caffe"
    # Anchors and what they are coded with
    anchor_sizes: tuple[float, ...] = (32, 64, 128, 256, 512)
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    anchor_scales: tuple[float, ...] = (2**0, 2 ** (1 / 3), 2 ** (2 / 3))
    anchor_rounding: str = "none"
    box_coder: str = "center"
    # Pyramid and heads
    fpn_channels: int = 256
    p6_from: str = "p5"
    head_channels: int = 256
    head_depth: int = 4
    head_normalization: str = "none"
    head_initializer: str = "normal"
    # Masks
    mask_channels: int = 256
    mask_depth: int = 4
    mask_upsample: str = "deconv"
    roi_size: int = 14
    roi_levels: int = 3
    roi_semantics: str = "aligned"
    roi_sampling_ratio: int = 2
    roi_implementation: str = "auto"
    stop_mask_gradient: bool = False
    # Precision
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_types(self)
        choices = {
            "padding": PADDINGS,
            "anchor_rounding": ROUNDINGS,
            "box_coder": BOX_CODERS,
            "p6_from": ("p5", "c5"),
            "mask_upsample": MASK_UPSAMPLES,
            "roi_semantics": ROI_SEMANTICS,
            "roi_implementation": ROI_IMPLEMENTATIONS,
            "pixel_mode": PIXEL_MODES,
            "head_normalization": AFTER,
            "dtype": DTYPES,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise SettingError(f"{name} {getattr(self, name)!r} is not one of {known}")
        BACKBONES.get(self.backbone)
        check_normalization(self.normalization)
        for pattern in (self.freeze,) if isinstance(self.freeze, str) else self.freeze:
            try:
                re.compile(pattern)
            except re.error as error:
                raise SettingError(f"freeze holds {pattern!r}, expected regular expressions: {error}") from error
        channels = named(self, "fpn_channels", "head_channels", "mask_channels")
        check_least({**channels, **named(self, "roi_size", "roi_levels", "roi_sampling_ratio")}, 1)
        check_least(named(self, "head_depth", "mask_depth", "frozen_stages"), 0)
        for name in ("anchor_sizes", "anchor_ratios", "anchor_scales"):
            if not getattr(self, name) or min(getattr(self, name)) <= 0:
                raise SettingError(f"{name} is {getattr(self, name)}, expected one number above 0 or more")
        if not 3 <= len(self.anchor_sizes) <= 5:
            raise SettingError(f"anchor_sizes is {self.anchor_sizes}, expected 3 to 5 sizes, one a level from P3 on")
        if self.roi_levels > len(self.anchor_sizes):
            raise SettingError(
                f"roi_levels is {self.roi_levels}, expected {len(self.anchor_sizes)} or less: as many levels as sizes"
            )
        try:
            self.anchor_grid()
        except ValueError as error:
            raise SettingError(str(error)) from error
        # By its name alone: making one draws its seed, after which every later weight would start otherwise.
        if self.head_initializer != "normal" and not callable(getattr(keras.initializers, self.head_initializer, None)):
            raise SettingError(
                f"head_initializer {self.head_initializer!r} is neither 'normal' nor the name of one of Keras' "
                "(keras.initializers), such as 'he_normal'"
            )

    def anchor_grid(self) -> AnchorGrid:
        """Return the anchors of the levels from P3 on, one size a level."""
        levels = tuple(range(3, 3 + len(self.anchor_sizes)))
        strides = tuple(2**level for level in levels)
        return AnchorGrid(
            levels, self.anchor_sizes, strides, self.anchor_ratios, self.anchor_scales, self.anchor_rounding
        )
