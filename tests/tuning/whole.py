"""A part's content in one piece."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Whole:
    content: bytes

    @property
    def size(self) -> int:
        return len(self.content)

    def __iter__(self) -> Iterator[bytes]:
        yield self.content
