"""Fixtures of the tests of sources: pictures of a size, files of a tool, what is read of them or wrong with them."""

import json

import numpy as np
import pytest

from tpu_retinamask.data.images.mask_reader import draw_mask
from tpu_retinamask.data.sources.opening import read_source
from tpu_retinamask.data.sources.registry import ReadOptions
from tpu_retinamask.data.sources.settings import SourceSettings
from tpu_retinamask.errors import UserError


@pytest.fixture
def picture(write):
    """Write a picture: picture("a.png", width, height)."""
    return lambda name, width=100, height=80: write(name, np.full((height, width, 3), 90, np.uint8))


@pytest.fixture
def save(write):
    """Write a text, or an object as JSON; return the path."""
    return lambda name, content: write(name, content if isinstance(content, str | bytes) else json.dumps(content))


@pytest.fixture
def read():
    """Read a path: read(path, classes, image_folder=..., setting=...)."""

    def read_path(path, classes=None, image_folder=None, **settings):
        return read_source(str(path), classes, None, ReadOptions(SourceSettings(**settings), image_folder))

    return read_path


@pytest.fixture
def objects(read):
    """Return [(class, box, pixels of the mask or None)] of each picture that a path lists."""

    def objects_of(path, size=(100, 80), **options):
        content = read(path, **options)
        width, height = size
        return [
            [
                (
                    content.classes.names[found.class_id],
                    found.box,
                    None if found.mask is None else draw_mask(found.mask, height, width),
                )
                for found in image.instances
            ]
            for image in content.images
        ]

    return objects_of


@pytest.fixture
def wrong(read):
    """Return what the error says of a path that cannot be read."""

    def message_of(path, **options):
        with pytest.raises(UserError) as error:
            read(path, **options)
        return str(error.value)

    return message_of
