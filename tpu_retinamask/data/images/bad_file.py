"""The error of one file that cannot be used."""

from tpu_retinamask.errors import UserError


class BadFile(UserError):
    """Say why a file cannot be used; the message is the reason, without the path.

    Attributes:
      kind: of the fault, in a word or two, to be counted by.
    """

    def __init__(self, kind: str, reason: str) -> None:
        """Take the kind and the reason."""
        self.kind = kind
        super().__init__(reason)
