"""The one form of an error that a user can cause, shared by all rooms and importing none.

Every message reads *where: what; got; rule; what to do*. The command line prints it without a
traceback and exits with :attr:`UserError.exit_code`; anything that is not a ``UserError`` is a
defect of the program and keeps its traceback.
"""


class UserError(Exception):
    """Bad input, or a surrounding that is not as it must be.

    Args:
        where: the file, field, address or command at fault.
        what: what is wrong with it, in a few words.
        got: the value that was found, if there is one.
        rule: what would be right (legal values, limits).
        remedy: what the reader can do now.
    """

    exit_code = 2

    def __init__(
        self,
        where: str,
        what: str,
        *,
        got: object = None,
        rule: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.where, self.what, self.got, self.rule, self.remedy = where, what, got, rule, remedy
        parts = [what]
        if got is not None:
            parts.append(f"got {got!r}")
        parts += [part for part in (rule, remedy) if part]
        super().__init__(f"{where}: " + "; ".join(parts))

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword arguments are lost by Exception's own pickling; Ray pickles errors of trials.
        return _rebuild, (type(self), self.where, self.what, self.got, self.rule, self.remedy)


class NotHereError(UserError):
    """What a training needs cannot be had on this machine: data, weights, keys, a folder to write
    to. Another machine may have it; another configuration would fare no better."""

    @classmethod
    def of(cls, error: UserError) -> "NotHereError":
        """The same words, where they mean that."""
        return cls(error.where, error.what, got=error.got, rule=error.rule, remedy=error.remedy)


def _rebuild(
    kind: type[UserError],
    where: str,
    what: str,
    got: object,
    rule: str | None,
    remedy: str | None,
) -> UserError:
    return kind(where, what, got=got, rule=rule, remedy=remedy)
