"""The CSV of keras-maskrcnn as a source: what no other kind recognises is read as one."""

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.annotations.csv_annotations import read_annotations
from tpu_retinamask.data.sources.registry import SOURCES, ReadOptions, SourceContent
from tpu_retinamask.errors import UserError


class CsvSource:
    """Reads `image,x1,y1,x2,y2,class,mask` rows."""

    def recognise(self, path: str) -> bool:
        """Tell whether the file is called one."""
        return path.lower().endswith((".csv", ".txt"))

    def read(self, path: str, classes: ClassNames | None, options: ReadOptions) -> SourceContent:
        """Read the rows; see `read_annotations`."""
        if classes is None:
            raise UserError(f"--annotations={path} is a CSV, whose classes are numbered by another: give --classes")
        return SourceContent(classes, read_annotations(path, classes))


SOURCES.register("csv")(CsvSource())
