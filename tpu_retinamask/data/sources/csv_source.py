"""The CSV of keras-maskrcnn as a source: what no other kind recognises is read as one."""

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.annotations.csv_annotations import read_csv
from tpu_retinamask.data.sources.registry import SOURCES, ReadOptions, SourceContent


class CsvSource:
    """Reads `image,x1,y1,x2,y2,class,mask` rows."""

    def recognise(self, path: str) -> bool:
        """Tell whether the file is called one."""
        return path.lower().endswith((".csv", ".txt"))

    def read(self, path: str, classes: ClassNames | None, options: ReadOptions) -> SourceContent:
        """Read the rows; see `read_csv`. Classes that nobody numbers are numbered in the order of their names."""
        return SourceContent(*read_csv(path, classes, options.settings.on_bad_record))


SOURCES.register("csv")(CsvSource())
