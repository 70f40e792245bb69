"""The error for a private name that another version of a library no longer has."""

from importlib.metadata import PackageNotFoundError, version


class MissingNameError(ImportError):
    """A library is of a version whose private names are not those that this project knows."""


def require(owner: object, *names: str, library: str, distributions: tuple[str, ...], works: str) -> None:
    """Raise MissingNameError for the first name that an owner lacks.

    Args:
      owner: module, class or instance of the library.
      *names: attributes that it must have.
      library: as people call it.
      distributions: that may have brought it, for its version.
      works: the versions that have the names.
    """
    for name in names:
        if not hasattr(owner, name):
            what = getattr(owner, "__name__", type(owner).__name__)
            raise MissingNameError(
                f"{library} {_version(distributions)} has no {what}.{name}, which tpu_retinamask uses: it works with "
                f"{library} {works}. Install a version that setup.cfg allows: pip install 'tpu-retinamask[cpu]'"
            )


def _version(distributions: tuple[str, ...]) -> str:
    for distribution in distributions:
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return "of unknown version"
