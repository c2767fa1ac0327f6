"""The state directory: private, locked, with a short folder for sockets; and its secrets."""

import shutil
import stat
import threading
import time
from pathlib import Path

import pytest

from cluster.local import credentials
from cluster.local.files import write_private
from cluster.local.state import StateDir
from usererror import UserError


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    directory = StateDir(tmp_path / "with a space" / ("long" * 30))
    directory.create()
    return directory


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_private_even_if_it_was_not(state: StateDir) -> None:
    state.root.chmod(0o755)
    state.create()
    assert mode(state.root) == 0o700


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be the state directory"):
        StateDir(tmp_path / "file").create()


def test_short_folder_is_short_stable_and_heals(state: StateDir) -> None:
    folder = state.short_folder()
    try:
        assert len(str(folder)) < 40
        assert (folder / "ray").resolve() == state.data("ray")
        assert state.short_folder() == folder
        # As a cleaner of /tmp would do under running servers:
        shutil.rmtree(folder)
        assert state.short_folder() == folder
        assert (folder / "ray").resolve() == state.data("ray")
        assert (folder / "environment").readlink() == state.data("environment")
    finally:
        state.remove_short_folder()
    assert not folder.exists()


def test_damaged_note_never_removes_a_folder_of_others(state: StateDir, tmp_path: Path) -> None:
    other = tmp_path / "precious"
    (other / "ray").mkdir(parents=True)
    (state.root / "short_folder").write_text(str(other))
    state.remove_short_folder()
    assert (other / "ray").is_dir()


def test_one_at_a_time(state: StateDir) -> None:
    order: list[str] = []

    def second() -> None:
        with state.lock(order.append):
            order.append("second")

    with state.lock(order.append):
        thread = threading.Thread(target=second)
        thread.start()
        deadline = time.monotonic() + 60
        while not order and time.monotonic() < deadline:
            time.sleep(0.01)
        order.append("first ends")
    thread.join()
    assert [line.split()[0] for line in order] == ["waiting", "first", "second"]


def test_lock_gives_up(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.local.state.LOCK_PATIENCE_S", 0.0)
    with (
        state.lock(print),
        pytest.raises(UserError, match="held by another"),
        state.lock(print),
    ):
        pass


def test_private_write_is_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("old")
    with pytest.raises(TypeError):
        write_private(file, 7)  # type: ignore[arg-type]
    assert file.read_text() == "old"
    write_private(file, "new")
    assert file.read_text() == "new"
    assert mode(file) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_secrets_are_private_random_and_kept(state: StateDir, tmp_path: Path) -> None:
    made = credentials.load_or_create(state.secrets)
    again = credentials.load_or_create(state.secrets)
    assert vars(made) == vars(again)
    assert made.ray_token not in repr(made)
    secrets = {made.postgres_password, made.postgres_admin_password, made.s3_secret_key}
    assert len(secrets | {made.ray_token, made.seaweed_internal_key}) == 5
    assert {mode(path) for path in state.secrets.iterdir()} == {0o600}
    (tmp_path / "more").mkdir()
    assert credentials.load_or_create(tmp_path / "more").ray_token != made.ray_token


def test_opened_up_secret_is_closed_again(state: StateDir) -> None:
    token = credentials.load_or_create(state.secrets).ray_token_file
    token.chmod(0o644)
    credentials.load_or_create(state.secrets)
    assert mode(token) == 0o600


@pytest.mark.parametrize("name", ["ray_token", "postgresql_password", "s3_credentials"])
@pytest.mark.parametrize("content", [b"", b"short", b"\xff\xfe"])
def test_damaged_secret(state: StateDir, name: str, content: bytes) -> None:
    credentials.load_or_create(state.secrets)
    (state.secrets / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: damaged secret"):
        credentials.load_or_create(state.secrets)
