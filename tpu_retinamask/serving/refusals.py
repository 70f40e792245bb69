"""What a request is refused with: a status, a code that programs can tell, what was wrong and what was expected."""

from tpu_retinamask.errors import UserError


class Refusal(UserError):
    """A request that is not answered.

    Attributes:
      status: of HTTP.
      code: a word or two, joined by underscores.
      what: was wrong.
      expected: in its place.
      retry_after: seconds after which it may be sent again; None: as it is, it never will be answered.
    """

    def __init__(self, status: int, code: str, what: str, expected: str, *, retry_after: int | None = None) -> None:
        """Take all of it."""
        super().__init__(f"{what}; expected {expected}")
        self.status, self.code, self.what, self.expected = status, code, what, expected
        self.retry_after = retry_after

    def content(self) -> dict:
        """Return the JSON that is answered."""
        return {"error": {"code": self.code, "what": self.what, "expected": self.expected}}

    def headers(self) -> dict[str, str]:
        """Return the headers of the answer."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
