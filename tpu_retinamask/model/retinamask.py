"""RetinaMask: backbone, feature pyramid, class and box heads on every anchor, mask head on regions.

Source: arXiv 1901.03353. The model only computes; targets and losses are in `losses`, selection in
`postprocess` and `mask_rois`.
"""

import keras
import tensorflow as tf

from tpu_retinamask.model.backbones.resnet import make_backbone
from tpu_retinamask.model.fpn import FeaturePyramid
from tpu_retinamask.model.freeze import freeze_layers, freeze_stages
from tpu_retinamask.model.heads import AnchorHead, MaskHead
from tpu_retinamask.ops.anchors import AnchorGrid
from tpu_retinamask.ops.boxes import CenterBoxCoder, CornerBoxCoder
from tpu_retinamask.ops.images import normalize_images
from tpu_retinamask.ops.roi_align import multilevel_roi_align
from tpu_retinamask.structures import RawOutputs


class RetinaMask(keras.Model):
    """One-stage instance segmentation network."""

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: str = "resnet50",
        backbone_options: dict | None = None,
        normalization: str = "frozen",
        frozen_stages: int = 0,
        freeze=(),
        pixel_mode: str = "caffe",
        anchor_sizes=(32, 64, 128, 256, 512),
        anchor_ratios=(0.5, 1.0, 2.0),
        anchor_scales=(2**0, 2 ** (1 / 3), 2 ** (2 / 3)),
        box_coder: str = "center",
        fpn_channels: int = 256,
        p6_from: str = "p5",
        head_channels: int = 256,
        head_depth: int = 4,
        head_initializer="normal",
        mask_channels: int = 256,
        mask_depth: int = 4,
        mask_upsample: str = "deconv",
        roi_size: int = 14,
        roi_levels: int = 3,
        roi_semantics: str = "aligned",
        roi_sampling_ratio: int = 2,
        roi_implementation: str = "auto",
        stop_mask_gradient: bool = False,
        dtype="float32",
    ) -> None:
        """Create the network.

        Args:
          num_classes: C, no background class.
          backbone: one of `backbone.BACKBONES`.
          backbone_options: further arguments of the backbone's class.
          normalization: "frozen", "batch" or "group"; see `backbone.make_backbone`.
          frozen_stages: first stages of the backbone that are not trained: 1 the stem, 2 the stem and C2, to 5.
          freeze: regular expressions; layers in whose path one is found are not trained either ("backbone", "fpn",
            "^pyramid_"); see `freeze`.
          pixel_mode: "caffe", "tf" or "torch"; see `ops.images`.
          anchor_sizes: side of the anchors of P3, P4, ... in canvas pixels; their number is the number
            of pyramid levels (3 to 5).
          anchor_ratios: height / width.
          anchor_scales: multiples of the sizes.
          box_coder: "center" (shift and log size, the paper) or "corner" (keras-retinanet).
          fpn_channels: F.
          p6_from: "p5" (the paper) or "c5".
          head_channels: of the class and box heads.
          head_depth: hidden convolutions of the class and box heads.
          head_initializer: "normal" is N(0, 0.01); narrow heads want "he_normal".
          mask_channels: of the mask head.
          mask_depth: hidden convolutions of the mask head.
          mask_upsample: "deconv" (the paper) or "nearest"; see `heads.MaskHead`.
          roi_size: P, bins a side; masks have 2P.
          roi_levels: pyramid levels that regions are taken from, P3 upwards.
          roi_semantics: "aligned" or "crop_and_resize"; see `ops.roi_align`.
          roi_sampling_ratio: samples a bin and axis of "aligned".
          roi_implementation: "gather" or "matmul", the same numbers at another speed; "auto": "matmul" on a TPU, which
            has no fast gather, "gather" elsewhere.
          stop_mask_gradient: the mask loss trains the mask head alone, not the features it samples
            (keras-maskrcnn).
          dtype: "float32" or "mixed_bfloat16" (float32 weights, bfloat16 convolutions).
        """
        super().__init__(name="retinamask")
        policy = keras.dtype_policies.get(dtype)
        with _default_policy(policy):
            self.backbone = make_backbone(backbone, normalization=normalization, **(backbone_options or {}))
            self.fpn = FeaturePyramid(fpn_channels, p6_from=p6_from, num_levels=len(anchor_sizes), name="fpn")
            levels = tuple(range(3, 3 + len(anchor_sizes)))
            self.anchor_grid = AnchorGrid(
                levels, anchor_sizes, tuple(2**level for level in levels), anchor_ratios, anchor_scales
            )
            head = dict(channels=head_channels, depth=head_depth, initializer=head_initializer)
            per_cell = self.anchor_grid.per_cell
            self.class_head = AnchorHead(per_cell, num_classes, prior=True, name="pyramid_classification", **head)
            self.box_head = AnchorHead(per_cell, 4, name="pyramid_regression", **head)
            self.mask_head = MaskHead(num_classes, channels=mask_channels, depth=mask_depth, upsample=mask_upsample)
        freeze_stages(self.backbone, frozen_stages)
        freeze_layers(self, freeze)
        self.box_coder = {"center": CenterBoxCoder, "corner": CornerBoxCoder}[box_coder]()
        self.num_classes = num_classes
        self.pixel_mode, self.normalization = pixel_mode, normalization
        self.compute_type = tf.as_dtype(policy.compute_dtype)
        self.roi_size = roi_size
        self.roi_levels = roi_levels
        self.stop_mask_gradient = stop_mask_gradient
        self.roi_options = dict(output_size=roi_size, semantics=roi_semantics, sampling_ratio=roi_sampling_ratio)
        self.roi_implementation = roi_implementation

    def create_weights(self, image_size=(64, 64)) -> "RetinaMask":
        """Create all variables by shape inference, computing nothing, and return the model."""
        self(keras.KerasTensor((1, *image_size, 3), "float32"))
        return self

    def build(self, input_shape):
        """Create the weights of the mask head, which `call` does not reach; the other layers build when called."""
        del input_shape
        self.mask_head.build((1, self.roi_size, self.roi_size, self.fpn.smooth[0].filters))
        self.mask_head.built = True

    def call(self, images, content_size=None, training=False) -> RawOutputs:
        """Compute features, class logits and box deltas of every level.

        Args:
          images: [B, H, W, 3] uint8 or float32 RGB, 0..255.
          content_size: [B, 2] int32, height and width of the picture on the canvas; None: all of it.
          training: whether "batch" normalisation uses the batch's statistics.

        Returns:
          RawOutputs, one entry a pyramid level.
        """
        x = normalize_images(images, content_size, self.pixel_mode)  # [B, H, W, 3] float32
        x = tf.cast(x, self.compute_type)
        features = self.fpn(self.backbone(x, training=training))  # P3.. each [B, h, w, F]
        return RawOutputs(
            features=features,
            class_logits=tuple(self.class_head(level) for level in features),  # [B, h * w * A, C]
            box_deltas=tuple(self.box_head(level) for level in features),  # [B, h * w * A, 4]
        )

    def mask_logits(self, features, boxes, classes, image_size) -> tf.Tensor:
        """Compute the masks of given regions.

        Args:
          features: RawOutputs.features.
          boxes: [B, K, 4] float32, canvas pixels; no gradient flows into them.
          classes: [B, K] int32, -1 where padded; None: masks of all classes.
          image_size: (H, W) of the canvas.

        Returns:
          float32 [B, K, 2P, 2P], or [B, K, 2P, 2P, C] without classes.
        """
        features = features[: self.roi_levels]
        if self.stop_mask_gradient:
            features = [tf.stop_gradient(level) for level in features]
        implementation = self.roi_implementation
        if implementation == "auto":
            on_tpu = isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy)
            implementation = "matmul" if on_tpu else "gather"
        with tf.name_scope("roi_align"):
            rois = multilevel_roi_align(features, boxes, image_size, implementation=implementation, **self.roi_options)
        return self.mask_head(rois, classes)  # rois [B, K, P, P, F]


class _default_policy:
    """Set the Keras dtype policy for the layers created inside a with block."""

    def __init__(self, policy) -> None:
        self.policy = policy

    def __enter__(self):
        self.before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self.policy)

    def __exit__(self, *_):
        keras.config.set_dtype_policy(self.before)
