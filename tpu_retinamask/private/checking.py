"""The error for a private name that another version of a library no longer has."""

import inspect
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
            raise MissingNameError(_missing(f"{what}.{name}", library, distributions, works))


def require_attribute(owner: type, *names: str, library: str, distributions: tuple[str, ...], works: str) -> None:
    """Raise MissingNameError for the first attribute that no method of a class speaks of.

    Instances have it; none is made to ask: that would start TensorFlow, whose devices are then fixed and whose threads
    survive no fork.
    """
    for name in names:
        if not any(name in _spoken_of(function) for base in owner.__mro__ for function in vars(base).values()):
            raise MissingNameError(_missing(f"{owner.__name__}.{name}", library, distributions, works))


def _spoken_of(function: object) -> tuple:
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    return (*code.co_names, *code.co_consts) if code else ()


def _missing(name: str, library: str, distributions: tuple[str, ...], works: str) -> str:
    return (
        f"{library} {_version(distributions)} has no {name}, which is used here: tpu_retinamask works with {library} "
        f"{works}. Install a version that setup.cfg allows: pip install 'tpu-retinamask[cpu]'"
    )


def _version(distributions: tuple[str, ...]) -> str:
    for distribution in distributions:
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return "of unknown version"
