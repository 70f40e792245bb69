"""How much is held at a time: the requests that were let in, and the bytes of their bodies."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from tpu_retinamask.serving.refusals import Refusal

RETRY_AFTER = 1  # seconds


class Limits(NamedTuple):
    """What a request may ask of the server.

    Attributes:
      body_bytes: of the body of a request.
      pixels: of a picture.
      seconds: from the first line of a request to its answer.
      requests: held at a time, those at work and those that wait.
    """

    body_bytes: int
    pixels: int
    seconds: float
    requests: int


class Room:
    """Seats for requests and bytes for their bodies; one event loop alone comes here, so nothing is locked.

    Attributes:
      requests: held now.
      held: bytes of their bodies.
    """

    def __init__(self, requests: int, most_bytes: int) -> None:
        """Take how much there is."""
        self.requests, self.held = 0, 0
        self._requests, self._bytes = requests, most_bytes

    @contextlib.contextmanager
    def seat(self) -> Iterator["Seat"]:
        """Hold a request within the block.

        Raises:
          Refusal: no seat is free.
        """
        if self.requests >= self._requests:
            raise Refusal(
                503,
                "busy",
                f"{self.requests} requests are held already",
                f"at most {self._requests} at a time: send it again",
                retry_after=RETRY_AFTER,
            )
        self.requests += 1
        seat = Seat(self)
        try:
            yield seat
        finally:
            self.requests -= 1
            self.held -= seat.held

    def take(self, count: int) -> None:
        """Take bytes.

        Raises:
          Refusal: there are fewer.
        """
        if self.held + count > self._bytes:
            raise Refusal(
                503,
                "busy",
                f"the bodies of {self.requests} requests fill the room that there is",
                f"at most {self._bytes} bytes together: send it again",
                retry_after=RETRY_AFTER,
            )
        self.held += count


class Seat:
    """A request that is held, and the bytes of its body so far."""

    def __init__(self, room: Room) -> None:
        """Begin without a byte."""
        self._room, self.held = room, 0

    def take(self, count: int) -> None:
        """Take bytes of the room; see `Room.take`."""
        self._room.take(count)
        self.held += count
