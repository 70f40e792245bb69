"""Backbones by name: what a network builds its pyramid on."""
