"""RetinaMask: backbone, feature pyramid, class and box heads on every anchor, mask head on regions.

Source: arXiv 1901.03353. The model only computes; targets and losses are in `losses`, selection in
`postprocess` and `mask_rois`.
"""

import contextlib
import dataclasses
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from tpu_retinamask.model.backbones.registry import check_levels, make_backbone
from tpu_retinamask.model.fpn import FeaturePyramid
from tpu_retinamask.model.freeze import freeze_layers, freeze_stages
from tpu_retinamask.model.heads import AnchorHead, MaskHead
from tpu_retinamask.model.layers.content import Content
from tpu_retinamask.model.settings import NetworkSettings
from tpu_retinamask.ops.boxes import CenterBoxCoder, CornerBoxCoder
from tpu_retinamask.ops.images import normalize_images
from tpu_retinamask.ops.roi_align import multilevel_roi_align
from tpu_retinamask.setting_types import check_names
from tpu_retinamask.structures import AnchorFrame, RawOutputs
from tpu_retinamask.traced_for import current_platform


class RetinaMask(keras.Model):
    """One-stage instance segmentation network."""

    def __init__(self, num_classes: int, settings: NetworkSettings | None = None, **changes: Any) -> None:
        """Create the network; its weights come with `create_weights`.

        Args:
          num_classes: C, no background class.
          settings: of its parts; None: the paper's.
          **changes: single settings by name, such as `backbone="small"`.

        Raises:
          SettingError: a setting that there is not, or a value that it cannot have.
        """
        super().__init__(name="retinamask")
        check_names(NetworkSettings, changes, "RetinaMask")
        settings = dataclasses.replace(settings or NetworkSettings(), **changes)
        self.settings, self.num_classes = settings, num_classes
        policy = keras.dtype_policies.get(settings.dtype)
        self.compute_type = tf.as_dtype(policy.compute_dtype)
        self.anchor_grid = settings.anchor_grid()
        with _default_policy(policy):
            self.backbone = make_backbone(
                settings.backbone,
                settings.backbone_options or {},
                normalization=settings.normalization,
                padding=settings.padding,
            )
            self.fpn = FeaturePyramid(
                settings.fpn_channels,
                p6_from=settings.p6_from,
                num_levels=len(self.anchor_grid.levels),
                padding=settings.padding,
                normalization=settings.head_normalization,
                name="fpn",
            )
            head: dict[str, Any] = dict(
                channels=settings.head_channels,
                depth=settings.head_depth,
                initializer=settings.head_initializer,
                normalization=settings.head_normalization,
            )
            per_cell = self.anchor_grid.per_cell
            self.class_head = AnchorHead(per_cell, num_classes, prior=True, name="pyramid_classification", **head)
            self.box_head = AnchorHead(per_cell, 4, name="pyramid_regression", **head)
            self.mask_head = MaskHead(
                num_classes,
                channels=settings.mask_channels,
                depth=settings.mask_depth,
                upsample=settings.mask_upsample,
            )
        freeze_stages(self.backbone, settings.frozen_stages)
        freeze_layers(self, settings.freeze)
        self.box_coder = {"center": CenterBoxCoder, "corner": CornerBoxCoder}[settings.box_coder]()

    @property
    def pixel_mode(self) -> str:
        """Return how pixels are normalised; see `ops.images`."""
        return self.settings.pixel_mode

    def frame(self, image_size: tuple[int, int]) -> AnchorFrame:
        """Return the anchors of a canvas (H, W), and what their boxes are coded with."""
        height, width = image_size
        return AnchorFrame((height, width), self.anchor_grid.anchors(image_size), self.box_coder)

    def create_weights(self, image_size: tuple[int, int]) -> "RetinaMask":
        """Create all variables by shape inference, computing nothing, and return the model.

        Args:
          image_size: (H, W) of the canvas that it will be used on: a backbone with absolute positions has weights for
            each of them.
        """
        self(keras.KerasTensor((1, *image_size, 3), "float32"))
        return self

    def build(self, input_shape: tuple) -> None:
        """Create the weights of the mask head, which `call` does not reach; the other layers build when called."""
        del input_shape
        self.mask_head.build((1, self.settings.roi_size, self.settings.roi_size, self.fpn.smooth[0].filters))
        self.mask_head.built = True

    def call(self, images: tf.Tensor, content_size: tf.Tensor | None = None, training: bool = False) -> RawOutputs:
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
        content = None
        if content_size is not None and self.settings.mask_padding:
            content = Content(content_size, tuple(x.shape[1:3]), self.compute_type)
        return self.outputs(x, content, training)

    def outputs(self, x: tf.Tensor, content: Content | None = None, training: bool = False) -> RawOutputs:
        """Compute the same from normalised images.

        Args:
          x: [B, H, W, 3] in the dtype that the network computes in; zero beside the picture.
          content: where the pictures lie; None: the canvas is all picture.
          training: see `call`.
        """
        asks = content is not None and "content" in inspect.signature(self.backbone.call).parameters
        levels = self.backbone(x, training=training, **({"content": content} if asks else {}))  # C3, C4, C5
        check_levels(levels, x.shape[1:3], self.settings.backbone)
        features = self.fpn(levels, content=content)  # P3.. each [B, h, w, F]
        inside = [content and content.mask(stride) for stride in self.anchor_grid.strides]
        return RawOutputs(
            features=features,
            class_logits=tuple(map(self.class_head, features, inside)),  # [B, h * w * A, C]
            box_deltas=tuple(map(self.box_head, features, inside)),  # [B, h * w * A, 4]
        )

    def mask_logits(
        self,
        features: Sequence[tf.Tensor],
        boxes: tf.Tensor,
        classes: tf.Tensor | None,
        image_size: tuple[int, int],
        content_size: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Compute the masks of given regions.

        Args:
          features: RawOutputs.features.
          boxes: [B, K, 4] float32, canvas pixels; no gradient flows into them.
          classes: [B, K] int32, -1 where padded; None: masks of all classes.
          image_size: (H, W) of the canvas.
          content_size: [B, 2] int32, height and width of the picture on the canvas; None: all of it.

        Returns:
          float32 [B, K, 2P, 2P], or [B, K, 2P, 2P, C] without classes.
        """
        settings = self.settings
        features = features[: settings.roi_levels]
        if settings.stop_mask_gradient:
            features = [tf.stop_gradient(level) for level in features]
        implementation = settings.roi_implementation
        if implementation == "auto":
            implementation = "gather" if current_platform() == "cpu" else "matmul"
        with tf.name_scope("roi_align"):
            rois = multilevel_roi_align(
                features,
                boxes,
                image_size,
                content_size=content_size if settings.mask_padding else None,
                implementation=implementation,
                output_size=settings.roi_size,
                semantics=settings.roi_semantics,
                sampling_ratio=settings.roi_sampling_ratio,
            )
        return self.mask_head(rois, classes)  # rois [B, K, P, P, F]


@contextlib.contextmanager
def _default_policy(policy: keras.DTypePolicy) -> Iterator[None]:
    """Set the Keras dtype policy for the layers created inside a with block."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
