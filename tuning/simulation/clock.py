"""A clock that stands still until it is moved."""


class VirtualClock:
    """Milliseconds since an arbitrary start; call it to read it."""

    def __init__(self) -> None:
        self._ms = 1_000_000_000_000  # an instant that databases can hold

    def __call__(self) -> int:
        return self._ms

    def move_to(self, ms: int) -> None:
        self._ms = max(self._ms, ms)
