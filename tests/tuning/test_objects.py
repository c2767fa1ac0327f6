"""What a server of objects says of an upload reaches the person who asked for it."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.settings import Settings
from tuning.objects import Objects, Place
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
