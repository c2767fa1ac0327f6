"""Which keys a server of objects is shown, and what it says reaches the person who asked."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from cluster.settings import Settings
from tuning.objects import (
    Objects,
    Place,
    StorageAwayError,
    StorageRefusesError,
    is_in_s3,
    parse_place,
)
from usererror import UserError

KEYS_SHOWN: list[str] = []


class Failing(http.server.BaseHTTPRequestHandler):
    """Answers every PUT as a server that has lost its disks, or as the test says."""

    status = 500

    def do_PUT(self) -> None:
        KEYS_SHOWN.append(self.headers["authorization"])
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(self.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


class Conditional(Failing):
    """Keeps what it is given, as far as it is told to."""

    kept: ClassVar[set[str]] = set()
    refused: str | None = None
    heeds = True

    def _answer(self, status: int, code: str = "") -> None:
        body = f"<Error><Code>{code}</Code></Error>".encode() if code else b""
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.refused == "PUT":
            self._answer(403, "AccessDenied")
        elif self.heeds and self.headers["if-none-match"] == "*" and self.path in self.kept:
            self._answer(412, "PreconditionFailed")
        else:
            self.kept.add(self.path)
            self._answer(200)

    def do_DELETE(self) -> None:
        if self.refused == "DELETE":
            self._answer(403, "AccessDenied")
        else:
            self.kept.discard(self.path)
            self._answer(204)


class Replaced(Failing):
    """Another object has come by the time that the one which was looked at is read."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "3")
        self.send_header("etag", '"a"')
        self.end_headers()

    def do_GET(self) -> None:
        body = b"<Error><Code>PreconditionFailed</Code></Error>"
        self.send_response(412)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def handler() -> type[Failing]:
    return Failing


@pytest.fixture
def endpoint(handler: type[Failing]) -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def settings(endpoint: str, tmp_path: Path) -> Settings:
    keys = tmp_path / "credentials"
    keys.write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    return Settings(state_dir=tmp_path, s3_endpoint=endpoint, s3_credentials_file=keys)


def test_an_upload_that_the_server_cannot_keep_is_told(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x")
    with pytest.raises(UserError, match="the S3 server cannot be used"):
        Objects(settings).upload(file, Place("bucket", "key"))


@pytest.mark.parametrize("status", [408, 429])
def test_a_server_that_has_too_much_to_do_is_away_and_refuses_nobody(
    settings: Settings, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Failing, "status", status)
    with pytest.raises(StorageAwayError):
        Objects(settings, attempts=1).put(Place("bucket", "key"), b"x")


@pytest.mark.parametrize("handler", [Conditional])
@pytest.mark.parametrize(
    ("refused", "heeds", "said"),
    [
        (None, True, None),
        ("PUT", True, "may not write and delete there; got 'AccessDenied'"),
        ("DELETE", True, "may not write and delete there; got 'AccessDenied'"),
        (None, False, "replaces what must stay; PutObject with `If-None-Match"),
    ],
)
def test_a_store_is_tried_before_anything_is_entrusted_to_it(
    settings: Settings,
    refused: str | None,
    heeds: bool,
    said: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Conditional, "kept", set())
    monkeypatch.setattr(Conditional, "refused", refused)
    monkeypatch.setattr(Conditional, "heeds", heeds)
    objects = Objects(settings, attempts=1)
    if said is None:
        objects.check_writing(Place("bucket", "checkpoints"))
    else:
        with pytest.raises(StorageRefusesError, match=rf"s3://bucket/checkpoints.*{said}"):
            objects.check_writing(Place("bucket", "checkpoints"))
    assert bool(Conditional.kept) == (refused == "DELETE"), "it is removed where that is allowed"


def test_an_endpoint_without_its_scheme_is_no_traceback(settings: Settings) -> None:
    wrong = settings.model_copy(update={"s3_endpoint": "localhost:8333"})
    with pytest.raises(StorageRefusesError, match=r"s3_endpoint: not an address; got 'localhost"):
        Objects(wrong)


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("AWS_DEFAULTS_MODE", "invalid defaults mode: x"),
        ("AWS_METADATA_SERVICE_TIMEOUT", "invalid literal"),
    ],
)
def test_what_else_is_wrong_is_not_taken_for_the_address(
    settings: Settings, variable: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "x")
    own = settings.model_copy(update={"s3_credentials_file": None})
    with pytest.raises(StorageRefusesError, match=rf"S3 credentials: .* cannot read them.*{said}"):
        Objects(own)


def test_keys_that_were_renewed_are_used_from_the_next_request_on(settings: Settings) -> None:
    objects, keys = Objects(settings, attempts=1), settings.s3_credentials_file
    assert keys is not None

    assert signed_with(objects) == "a"
    keys.write_text("[default]\naws_access_key_id = renewed\n")  # half of it is written
    assert signed_with(objects) == "a"
    keys.write_text("[default]\naws_access_key_id = renewed\naws_secret_access_key = c\n")
    assert signed_with(objects) == "renewed"
    keys.unlink()
    assert signed_with(objects) == "renewed"


@pytest.mark.parametrize("variable", ["AWS_SHARED_CREDENTIALS_FILE", "HOME"])
def test_keys_that_were_renewed_where_aws_keeps_them_are_used_as_well(
    settings: Settings, tmp_path: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / ".aws" / "credentials"
    keys.parent.mkdir()
    keys.write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "absent"))
    monkeypatch.setenv(variable, str(tmp_path if variable == "HOME" else keys))
    own = settings.model_copy(update={"s3_credentials_file": None})
    objects = Objects(own, attempts=1)
    assert signed_with(objects) == "a"
    keys.write_text("")  # it is just being written
    assert signed_with(objects) == "a"
    keys.write_text("[default]\naws_access_key_id = renewed\naws_secret_access_key = c\n")
    assert signed_with(objects) == "renewed"


def signed_with(objects: Objects) -> str:
    """The key that a request shows."""
    KEYS_SHOWN.clear()
    with pytest.raises(StorageAwayError):
        objects.put(Place("bucket", "key"), b"x")
    return KEYS_SHOWN[-1].partition("Credential=")[2].partition("/")[0]


@pytest.mark.parametrize(
    ("own_file", "s3_region", "environment", "expected"),
    [
        (True, None, {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-2"}, "us-east-1"),
        (True, "eu-north-1", {"AWS_REGION": "eu-west-1"}, "eu-north-1"),
        (False, "eu-north-1", {"AWS_REGION": "eu-west-1"}, "eu-north-1"),
        (False, None, {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-2"}, "eu-west-1"),
        (False, None, {"AWS_DEFAULT_REGION": "eu-west-2"}, "eu-west-2"),
        (False, None, {"AWS_CONFIG_FILE": "config"}, "eu-west-3"),
        (False, None, {}, "us-east-1"),
    ],
)
def test_the_region_is_that_of_the_keys(
    settings: Settings,
    own_file: bool,
    s3_region: str | None,
    environment: dict[str, str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "config").write_text("[default]\nregion = eu-west-3\n")
    monkeypatch.chdir(tmp_path)
    keys = {"AWS_ACCESS_KEY_ID": "c", "AWS_SECRET_ACCESS_KEY": "d"}
    for name, value in ({"AWS_CONFIG_FILE": "absent"} | keys | environment).items():
        monkeypatch.setenv(name, value)
    changed: dict[str, object] = {"s3_region": s3_region}
    if not own_file:
        changed["s3_credentials_file"] = None
    objects = Objects(settings.model_copy(update=changed), attempts=1)
    assert objects._client.meta.region_name == expected


@pytest.mark.parametrize(
    "of_other_servers",
    [
        {"AWS_ACCESS_KEY_ID": "c", "AWS_SECRET_ACCESS_KEY": "d", "AWS_SESSION_TOKEN": "e"},
        {"AWS_ACCESS_KEY_ID": "c"},
        {"AWS_PROFILE": "work"},
        {"AWS_CONFIG_FILE": "a file that is none"},
    ],
)
def test_the_file_of_the_settings_counts_alone(
    settings: Settings,
    of_other_servers: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "a file that is none").write_text("[default\n")
    monkeypatch.chdir(tmp_path)
    for name, value in of_other_servers.items():
        monkeypatch.setenv(name, value)
    KEYS_SHOWN.clear()
    with pytest.raises(UserError, match="the S3 server cannot be used"):
        Objects(settings, attempts=1).put(Place("bucket", "key"), b"x")
    assert ["Credential=a/" in shown for shown in KEYS_SHOWN] == [True]


@pytest.mark.parametrize("content", ["[other]", "[default", "[default]\naws_access_key_id = a"])
def test_a_file_without_whole_keys_is_named(settings: Settings, content: str) -> None:
    assert settings.s3_credentials_file is not None
    settings.s3_credentials_file.write_text(content)
    with pytest.raises(StorageRefusesError, match=r"credentials: .*\[default\]"):
        Objects(settings)


def test_a_profile_that_is_nowhere_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "absent"))
    monkeypatch.setenv("AWS_PROFILE", "work")
    with pytest.raises(StorageRefusesError, match=r"profile \(work\).*S3_CREDENTIALS_FILE"):
        Objects(Settings(state_dir=tmp_path, s3_endpoint="http://127.0.0.1:1"))


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("s3://bucket/key", True),
        ("S3://bucket/key", True),
        ("s3:/bucket/key", True),  # which `parse_place` refuses
        ("/data/a set", False),
        ("~/sets/a:b", False),
        ("./a:b", False),
        ("", False),
    ],
)
def test_a_place_is_in_s3_or_a_folder(place: str, expected: bool) -> None:
    assert is_in_s3(place) is expected


@pytest.mark.parametrize("place", ["gs://bucket/key", "http://host/key", "hdfs:/key"])
def test_a_place_of_another_kind_is_no_folder(place: str) -> None:
    with pytest.raises(UserError, match=r"not a place that can be used; a folder, or s3://"):
        is_in_s3(place)


def test_half_a_place_in_s3_is_refused() -> None:
    with pytest.raises(UserError, match="not a place in S3"):
        parse_place("s3:/bucket/key")


@pytest.mark.parametrize("key", ["", "faces", "faces#2", "faces?2", "a/b;c=d?e#f", "%23"])
def test_a_key_is_taken_as_it_is_written(key: str) -> None:
    assert is_in_s3(f"s3://bucket/{key}")
    assert parse_place(f"s3://bucket/{key}") == Place("bucket", key)
    assert parse_place(f"S3://bucket/{key}/") == Place("bucket", key)


@pytest.mark.parametrize("handler", [Replaced])
def test_an_object_that_is_replaced_while_it_is_read_is_to_be_asked_for_again(
    settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(StorageAwayError, match=r"s3://bucket/key at .* was replaced while"):
        Objects(settings).download(Place("bucket", "key"), tmp_path / "file")
    assert list(tmp_path.glob("file*")) == []
