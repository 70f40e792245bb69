"""The frames of records: TensorFlow believes the length that one says, and a forged one ends the process."""

import concurrent.futures
import os
import struct
from collections.abc import Sequence

import numpy as np

from tpu_retinamask.data.prepared.index import BadIndex, SplitIndex


def check_frames(shards: Sequence[str], index: SplitIndex) -> None:
    """Compare the length in each record's frame with that of the index: 8 bytes a record.

    Of shards on a local disk; a bucket would be asked for every record once more.

    Args:
      shards: [S] their paths.
      index: which has been checked.

    Raises:
      BadIndex: they differ, or a shard cannot be read.
    """
    order = np.argsort(index.shard, kind="stable")
    rows = np.split(order, np.cumsum(np.bincount(index.shard, minlength=len(shards)))[:-1]) if len(shards) else []

    def first_wrong(job: tuple[str, np.ndarray]) -> int | None:
        path, own = job
        try:
            file = os.open(path.removeprefix("file://"), os.O_RDONLY)
        except OSError as error:
            raise BadIndex(f"{os.path.basename(path)} cannot be read: {error.strerror}") from error
        try:
            for row, offset, length in zip(own.tolist(), index.offset[own].tolist(), index.length[own].tolist()):
                if os.pread(file, 8, offset) != struct.pack("<Q", length):
                    return row
        finally:
            os.close(file)
        return None

    local = [(path, own) for path, own in zip(shards, rows) if "://" not in path or path.startswith("file://")]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        wrong = [row for row in pool.map(first_wrong, local) if row is not None]
    if wrong:
        raise BadIndex(
            f"record {wrong[0]} of {len(index.shard)}, {str(index.name[wrong[0]])!r}, has another length in its shard"
        )
