"""Backbones by name: what a network builds its pyramid on. Those of the project take their seats here."""

from tpu_retinamask.model.backbones import efficientnet_lite, resnet, small  # noqa: F401
