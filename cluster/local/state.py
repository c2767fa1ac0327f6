"""Where everything of the local servers lies: all paths of one state directory."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.local.files import write_private
from cluster.settings import SETTINGS_FILE_NAME
from usererror import UserError

LOCK_PATIENCE_S = 180.0
"""How long to wait for another `up` or `down`: longer than a slow start. Untuned."""

_SHORT_PREFIX = "hopetune-"
_LINKED = ("ray", "environment")
_SHORT_PARENT = Path("/tmp")  # noqa: S108 (mkdtemp makes it private)


@dataclass(frozen=True)
class StateDir:
    """The state directory; private to its user, as object data and logs lie in it in clear."""

    root: Path

    @property
    def settings(self) -> Path:
        """What `up` writes and everything else reads."""
        return self.root / SETTINGS_FILE_NAME

    @property
    def ports(self) -> Path:
        """Last time's ports."""
        return self.root / "ports.json"

    @property
    def secrets(self) -> Path:
        """Passwords, keys and the token, each in a file of its own."""
        return self.root / "secrets"

    def log(self, name: str) -> Path:
        """What a server printed."""
        return self.root / "logs" / f"{name}.log"

    def record(self, name: str) -> Path:
        """Which process a server is."""
        return self.root / "processes" / f"{name}.json"

    def data(self, name: str) -> Path:
        """A server's data."""
        return self.root / name

    def create(self) -> None:
        """Make the folders.

        Raises:
            UserError: they cannot be made.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.root.chmod(0o700)
            for folder in ("secrets", "logs", "processes", "postgresql", "s3", "mlflow", "ray"):
                (self.root / folder).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise UserError(
                str(self.root),
                "cannot be the state directory",
                got=str(error),
                rule="a folder that you may write to",
                remedy="name another with HOPETUNE_STATE_DIR",
            ) from error

    def short_folder(self) -> Path:
        """A folder with a short name, where unix sockets fit (their path ends at 107 bytes).

        It holds only links and sockets, so nothing is lost with it.
        """
        note = self.root / "short_folder"
        with contextlib.suppress(OSError):
            known = Path(note.read_text(encoding="utf-8"))
            if known.name.startswith(_SHORT_PREFIX) and not known.exists():
                # A cleaner of temporary folders was here; running servers still use the name.
                known.mkdir(mode=0o700)
                self._link(known)
            mine = known.stat().st_uid == os.getuid()
            if mine and all((known / name).readlink() == self.data(name) for name in _LINKED):
                return known
        parent = (
            _SHORT_PARENT
            if os.access(_SHORT_PARENT, os.W_OK | os.X_OK)
            else Path(tempfile.gettempdir())
        )
        folder = Path(tempfile.mkdtemp(prefix=_SHORT_PREFIX, dir=parent))
        self._link(folder)
        write_private(note, str(folder))
        return folder

    def _link(self, short_folder: Path) -> None:
        for name in _LINKED:
            (short_folder / name).symlink_to(self.data(name))

    def remove_short_folder(self) -> None:
        """Take the short folder away again; the next start makes another."""
        note = self.root / "short_folder"
        with contextlib.suppress(OSError):
            known = Path(note.read_text(encoding="utf-8"))
            # Only what short_folder() made: never a folder that a damaged note names.
            if known.name.startswith(_SHORT_PREFIX) and (known / "ray").is_symlink():
                shutil.rmtree(known)
        note.unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self, progress: Callable[[str], None]) -> Iterator[int]:
        """One `up` or `down` at a time. The lock ends with its holder, so it is never stale.

        Raises:
            UserError: another one held it for too long.
        """
        handle = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _acquire(handle, self.root, progress)
            yield handle
        finally:
            os.close(handle)


def _acquire(handle: int, root: Path, progress: Callable[[str], None]) -> None:
    deadline = time.monotonic() + LOCK_PATIENCE_S
    waiting = False
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not waiting:
                progress(f"waiting for another `hopetune up` or `down` on {root}")
                waiting = True
            if time.monotonic() > deadline:
                raise UserError(
                    str(root / "lock"),
                    f"held by another `hopetune up` or `down` for over {LOCK_PATIENCE_S:.0f} s",
                    remedy="end that one, then try again",
                ) from None
            time.sleep(0.1)
