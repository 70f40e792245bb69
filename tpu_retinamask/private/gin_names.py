"""Names that gin keeps private: how it reads files."""

import contextlib
import io
import re
import tokenize
from collections.abc import Callable, Collection, Iterator, Sequence

import gin.config
import gin.config_parser

from tpu_retinamask.private.checking import require

require(gin.config, "_FILE_READERS", library="gin-config", distributions=("gin-config",), works="0.5")


class _InFile(ValueError):
    """What is wrong in a gin file, by its name."""


def told(error: Exception) -> str:
    """Return what gin says of a slip, in words for those who made it."""
    text = str(error)
    if isinstance(error, tokenize.TokenError) and len(error.args) == 2:
        text = f"{error.args[0]} (line {error.args[1][0]})"
    return re.sub(r"malformed node or string.*\n", "no value; text stands in quotes\n", text)


class _References(gin.config_parser.ParserDelegate):
    """Notes what a text refers to; nothing is looked up."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> None:
        self.names.append(scoped_configurable_name)

    def macro(self, macro_name: str) -> None:
        pass


def code_in(text: str, known: Collection[str]) -> list[str]:
    """Return what gin would run for a text: its imports, what it includes, and what it refers to beside known names.

    What follows a slip is not looked at, for gin reads no further either.
    """
    references, found = _References(), []
    with contextlib.suppress(SyntaxError, ValueError, tokenize.TokenError, RecursionError):
        parser = gin.config_parser.ConfigParser(text, references)
        while (statement := parser.parse_statement()) is not None:
            if isinstance(statement, gin.config_parser.ImportStatement):
                found.append(statement.format())
            elif isinstance(statement, gin.config_parser.IncludeStatement):
                found.append(f"include {statement.filename!r}")
    strange = (name for name in references.names if name.rpartition("/")[2].rpartition(".")[2] not in known)
    return [*found, *(f"@{name}" for name in strange)]


def read_files_by(readers: Sequence[tuple[Callable, Callable[[str], bool]]]) -> list[str]:
    """Have gin read files by these alone: (opens a path, tells whether it can) in the order in which they are asked.

    Returns:
      The texts that gin reads from now on, which this list takes in.
    """
    texts: list[str] = []

    def noting(open_path: Callable) -> Callable:
        @contextlib.contextmanager
        def read(path: str) -> Iterator[io.StringIO]:
            with open_path(path) as file:
                try:
                    text = file.read()
                except UnicodeDecodeError as error:
                    raise _InFile(f"{path}: expected text in UTF-8, got a byte that is none: {error}") from error
            texts.append(text.removeprefix("\ufeff"))  # the mark that some editors begin a file with
            try:
                yield io.StringIO(texts[-1])
            except (SyntaxError, ValueError, tokenize.TokenError) as error:
                if isinstance(error, _InFile):  # which this one includes
                    raise
                raise _InFile(f"{path}: {told(error)}") from error

        return read

    gin.config._FILE_READERS[:] = [(noting(open_path), can) for open_path, can in readers]
    return texts
