r"""Write a CSV and its files as one data set of TFRecord shards, for fast reading and for buckets.

  python -m tpu_retinamask.prepare --annotations=train.csv --val_annotations=val.csv --classes=classes.csv \
      --data_dir=gs://bucket/cells
  python -m tpu_retinamask.prepare --data_dir=gs://bucket/cells --verify

Run the same command again to go on after an interruption. `train --data_dir` then gives the batches of the CSV; TFDS
reads the folder too (`tfds.builder_from_directory`). docs/records.md tells what lies in it.
"""

import hashlib
import importlib.util

from absl import flags

import gin
from tpu_retinamask import config  # first: it quiets TensorFlow's start-up
from tpu_retinamask.data.annotations.class_names import read_classes
from tpu_retinamask.data.annotations.csv_annotations import read_annotations
from tpu_retinamask.data.annotations.scan import scan_records
from tpu_retinamask.data.prepared.reading import open_records, read_bytes, verify_records
from tpu_retinamask.data.prepared.writing import RecordsBuilder

FLAGS = flags.FLAGS


@gin.configurable
def prepare(
    annotations: str,
    classes: str,
    data_dir: str,
    val_annotations: str | None = None,
    *,
    on_bad_record: str = "stop",
    exif_orientation: str = "refuse",
    images_per_shard: int = 256,
    threads: int = 8,
    progress: bool = True,
):
    """Scan the annotated images and write those that can be used.

    Args:
      annotations: CSV of the images of the split `train`.
      classes: CSV of class names.
      data_dir: where the data set goes; a folder of its own.
      val_annotations: CSV of the images of the split `validation`.
      on_bad_record: "stop" at a file that cannot be used, or "skip" it, counted.
      exif_orientation: of rotated JPEGs: "refuse", "ignore" (boxes are meant on the stored pixels) or "apply".
      images_per_shard: images a TFRecord file; what an interruption loses at most.
      threads: images read at a time.
      progress: show progress bars.
    """
    names = read_classes(classes)
    splits, sources = {}, {"on_bad_record": on_bad_record, "exif_orientation": exif_orientation}
    for split, path in (("train", annotations), ("validation", val_annotations)):
        if path:
            splits[split] = scan_records(
                read_annotations(path, names),
                on_bad_record=on_bad_record,
                exif_orientation=exif_orientation,
                threads=threads,
                progress=progress,
            )
            config.log.info("%s: %s", split, splits[split].summary())
            sources[split] = hashlib.sha256(read_bytes(path)).hexdigest()
    builder = RecordsBuilder(
        data_dir, names, splits, sources=sources, images_per_shard=images_per_shard, threads=threads
    )
    if not builder.build(progress=progress):
        config.log.info("%s was finished already; nothing was written", data_dir)
    for split in splits:
        config.log.info("%s: %d images ready in %s", split, len(open_records(data_dir).split(split)), data_dir)


def main():
    """Run the program."""
    if FLAGS.verify:
        config.log.info(
            "%d files of %s are as they were written", verify_records(FLAGS.data_dir, progress=True), FLAGS.data_dir
        )
        return
    missing = [f"--{name}" for name in ("annotations", "classes") if FLAGS[name].value is None]
    if missing:
        raise config.UserError(f"prepare needs {' and '.join(missing)}, or --verify for a data set that is there")
    if importlib.util.find_spec("tensorflow_datasets") is None:
        raise config.UserError(
            "prepare writes with tensorflow-datasets, which is not installed: pip install 'tpu-retinamask[records]'"
        )
    config.parse_gin(FLAGS.gin_file, FLAGS.gin_param)
    prepare(FLAGS.annotations, FLAGS.classes, FLAGS.data_dir, FLAGS.val_annotations)


if __name__ == "__main__":
    flags.DEFINE_string("annotations", None, "CSV of the images to train on: image,x1,y1,x2,y2,class,mask.")
    flags.DEFINE_string("classes", None, "CSV of class names: name,id.")
    flags.DEFINE_string("val_annotations", None, "CSV of the images to score.")
    flags.DEFINE_string("data_dir", None, "Folder of the data set, local or gs://.", required=True)
    flags.DEFINE_bool("verify", False, "Compare every file of --data_dir with its checksum; write nothing.")
    config.define_gin_flags()
    config.run_program(main)
