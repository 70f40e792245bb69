"""Polygons in the form of GeoJSON, in pixels of the picture.

Source: https://www.rfc-editor.org/rfc/rfc7946
"""

import os

from tpu_retinamask.files import write_json_atomically
from tpu_retinamask.prediction_formats.outlines import regions_of
from tpu_retinamask.prediction_formats.registry import FORMATS, FoundObject, Output, PredictedPicture


@FORMATS.register("geojson")
class GeoJson:
    """`geojson/STEM.geojson` a picture: a feature an object, along the edges of its pixels; x to the right, y down."""

    def __init__(self, output: Output) -> None:
        """Take where to."""
        self.folder = os.path.join(output.folder, "geojson")

    def files(self, stem: str) -> list[str]:
        """Return where a picture's objects are told."""
        return [f"geojson/{stem}.geojson"]

    def add(self, picture: PredictedPicture) -> None:
        """Write the file of a picture."""
        content = {"type": "FeatureCollection", "features": [_feature(found) for found in picture.objects]}
        write_json_atomically(os.path.join(self.folder, f"{picture.stem}.geojson"), content)

    def finish(self) -> None:
        """Add nothing."""


def _feature(found: FoundObject) -> dict:
    x1, y1, x2, y2 = found.box
    if found.mask is None:
        polygons = [[_closed([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])]]
    else:
        polygons = [
            [_closed(ring.tolist()) for ring in (region.outline, *region.holes)] for region in regions_of(found.mask)
        ]
    geometry = (
        {"type": "Polygon", "coordinates": polygons[0]}
        if len(polygons) == 1
        else {"type": "MultiPolygon", "coordinates": polygons}
    )
    properties = {"class": found.name, "score": found.score, "has_mask": found.mask is not None}
    return {"type": "Feature", "bbox": list(found.box), "geometry": geometry, "properties": properties}


def _closed(ring: list) -> list:
    return [*ring, ring[0]]
