"""What a server of objects says of an upload reaches the person who asked for it."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.settings import Settings
from tuning.objects import Objects, Place, is_in_s3, parse_place
from usererror import UserError


class Failing(http.server.BaseHTTPRequestHandler):
    """Answers every PUT as a server that has lost its disks."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(500)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Failing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_upload_that_the_server_cannot_keep_is_told(endpoint: str, tmp_path: Path) -> None:
    keys = tmp_path / "credentials"
    keys.write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    file = tmp_path / "file"
    file.write_bytes(b"x")
    settings = Settings(state_dir=tmp_path, s3_endpoint=endpoint, s3_credentials_file=keys)
    with pytest.raises(UserError, match="the S3 server cannot be used"):
        Objects(settings).upload(file, Place("bucket", "key"))


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
