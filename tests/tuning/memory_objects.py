"""An S3 door over a dictionary, behind a gate that can be shut, with places that can refuse."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tuning.objects import AbsentObjectError, Listed, Place, StorageAwayError


class MemoryObjects:
    """What checkpoints ask of ``tuning.objects.Objects``."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.away = False
        self.refuses: Callable[[str], bool] = lambda _key: False
        self.requests: list[str] = []

    def get(self, place: Place) -> bytes:
        self._asked("get", place)
        try:
            return self.contents[place.key]
        except KeyError:
            raise AbsentObjectError(str(place)) from None

    def download(self, place: Place, path: Path) -> None:
        path.write_bytes(self.get(place))

    def put(self, place: Place, content: bytes) -> None:
        assert self.gate.wait(100)
        self._asked("put", place)
        self.contents[place.key] = content

    def put_new(self, place: Place, content: bytes) -> bool:
        assert self.gate.wait(100)
        self._asked("put_new", place)
        return self.contents.setdefault(place.key, content) is content

    def exists(self, place: Place) -> bool:
        self._asked("exists", place)
        return place.key in self.contents

    def listed(self, folder: Place) -> Iterator[Listed]:
        self._asked("list", folder)
        for key, content in sorted(self.contents.items()):
            if not folder.key or key.startswith(f"{folder.key}/"):
                yield Listed(key, len(content), 0)

    def copy(self, source: Place, target: Place) -> None:
        self._asked("copy", source)
        if source.key not in self.contents:
            raise AbsentObjectError(str(source))
        self.contents[target.key] = self.contents[source.key]

    def delete(self, place: Place) -> None:
        self._asked("delete", place)
        self.contents.pop(place.key, None)

    def _asked(self, what: str, place: Place) -> None:
        self.requests.append(what)
        if self.away or self.refuses(place.key):
            raise StorageAwayError(str(place), "the S3 server cannot be used")
