"""Names that gin keeps private: how it reads files."""

from collections.abc import Callable, Sequence

import gin.config

from tpu_retinamask.private.checking import require

require(gin.config, "_FILE_READERS", library="gin-config", distributions=("gin-config",), works="0.5")


def read_files_by(readers: Sequence[tuple[Callable, Callable[[str], bool]]]) -> None:
    """Have gin read files by these alone: (opens a path, tells whether it can) in the order in which they are asked."""
    gin.config._FILE_READERS[:] = list(readers)
