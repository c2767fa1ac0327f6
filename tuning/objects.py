"""The one door to S3-compatible storage."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import botocore.session
from boto3.exceptions import Boto3Error
from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from s3transfer.exceptions import S3DownloadFailedError

from cluster.settings import Settings
from headpose.files import version_of
from usererror import NotHereError, UserError

S3_ERRORS = (BotoCoreError, ClientError, Boto3Error)
"""What AWS's library raises, here or where MLflow calls it."""

_ABSENT = {"404", "NoSuchKey", "NotFound"}
_IN_THE_WAY = {"412", "PreconditionFailed", "409", "ConditionalRequestConflict"}
_REFUSED = {"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "Forbidden"}
_BUSY = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}


@dataclass(frozen=True)
class Place:
    """A bucket and a key (or the beginning of keys) in it."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    def __truediv__(self, name: str) -> "Place":
        return Place(self.bucket, f"{self.key.rstrip('/')}/{name}".lstrip("/"))


def parse_place(uri: str) -> Place:
    """``s3://bucket/key`` in its parts.

    Raises:
        UserError: not of that form.
    """
    scheme, _, rest = uri.partition("://")
    # Not by urlparse, which cuts a key at `#` or `?`: these are letters of it.
    bucket, _, key = rest.partition("/")
    if scheme.lower() != "s3" or not bucket:
        raise UserError(uri, "not a place in S3", rule="s3://BUCKET/KEY")
    return Place(bucket, key.strip("/"))


def is_in_s3(place: str) -> bool:
    """Whether a person's word for a place means S3; otherwise it is a folder's path.

    Raises:
        UserError: it is neither.
    """
    scheme = urlparse(place).scheme
    if scheme not in ("", "s3"):
        rule = "a folder, or s3://BUCKET/KEY"
        raise UserError(place, "not a place that can be used", rule=rule)
    return scheme == "s3"


class AbsentObjectError(LookupError):
    """There is no object at that place."""


class StorageAwayError(UserError):
    """The server does not answer, or not in time; it may do so later."""


class StorageRefusesError(NotHereError):
    """This node's keys or addresses do not open the storage."""


@dataclass(frozen=True)
class Listed:
    """An object as a listing shows it."""

    key: str
    size: int
    """In bytes."""
    modified_ms: int


class Objects:
    """Objects of one endpoint. Each thread and process makes its own.

    All methods raise :class:`StorageAwayError` where the server cannot be reached, and
    :class:`StorageRefusesError` where there are no keys or it refuses them; so does making one
    where the keys cannot be read.

    Args:
        settings: name the server.
        timeout_s: how long a server may be silent.
        attempts: how often a request is tried before it fails.
    """

    def __init__(self, settings: Settings, timeout_s: float = 60.0, attempts: int = 4) -> None:
        self._endpoint = settings.s3_endpoint or "AWS S3"
        self._settings = settings
        self._config = Config(
            retries={"mode": "standard", "total_max_attempts": attempts},
            connect_timeout=5,
            read_timeout=timeout_s,
            s3={"addressing_style": "path"},
        )
        self._keys_file = settings.s3_credentials_file or _keys_file_of_aws()
        self._keys_of = _version(self._keys_file)
        self._made = self._new_client()

    @property
    def _client(self) -> Any:
        """AWS's library reads a file of keys once; one that was renewed since is read again."""
        version = _version(self._keys_file)
        if version not in (None, self._keys_of):
            with contextlib.suppress(StorageRefusesError):  # it is just being written
                self._made, self._keys_of = self._new_client(), version
        return self._made

    def _new_client(self) -> Any:
        try:
            session = _session(self._settings)
            return session.client(
                "s3", endpoint_url=self._settings.s3_endpoint, config=self._config
            )
        except (BotoCoreError, ValueError) as error:  # no such profile, half a key, …
            if str(error).startswith("Invalid endpoint"):
                where, got = "settings.s3_endpoint", self._settings.s3_endpoint
                rule = "http://HOST:PORT, or https://HOST"
                raise StorageRefusesError(where, "not an address", got=got, rule=rule) from error
            where = str(self._settings.s3_credentials_file or "S3 credentials")
            remedy = "correct them, or have HOPETUNE_S3_CREDENTIALS_FILE name a file with [default]"
            what = "AWS's library cannot read them"
            raise StorageRefusesError(where, what, got=str(error), remedy=remedy) from error

    def check(self, bucket: str) -> None:
        """Makes sure that the bucket is there and that it lets these keys in."""
        self._call("head_bucket", Place(bucket, ""), Bucket=bucket)

    def check_writing(self, folder: Place) -> None:
        """Makes sure that these keys may write and delete below a place, and that ``put_new`` never
        replaces an object there."""
        probe = folder / f"probe-{uuid.uuid4().hex}"
        try:
            self.put_new(probe, b"")  # its answer may have been lost and the request tried again
            replaces = self.put_new(probe, b"")
            self.delete(probe)
        except StorageRefusesError as error:
            what = "these keys may not write and delete there"
            raise StorageRefusesError(
                error.where, what, got=error.got, remedy=error.remedy
            ) from error
        if replaces:
            where, what = f"{folder} at {self._endpoint}", "the S3 server replaces what must stay"
            rule = "PutObject with `If-None-Match: *` fails where there is an object (412)"
            remedy = "use a server, or a version of it, that knows conditional writes"
            raise StorageRefusesError(where, what, rule=rule, remedy=remedy)

    def put(self, place: Place, content: bytes) -> None:
        self._call("put_object", place, Bucket=place.bucket, Key=place.key, Body=content)

    def put_new(self, place: Place, content: bytes) -> bool:
        """As ``put``, but never in the place of another object; says whether it was stored."""
        try:
            self._client.put_object(
                Bucket=place.bucket, Key=place.key, Body=content, IfNoneMatch="*"
            )
        except ClientError as error:
            if error.response["Error"]["Code"] in _IN_THE_WAY:
                return False
            raise self._explained(error, place) from error
        except BotoCoreError as error:
            raise self._explained(error, place) from error
        return True

    def get(self, place: Place) -> bytes:
        """The content of an object.

        Raises:
            AbsentObjectError: there is none.
        """
        answer = self._call("get_object", place, Bucket=place.bucket, Key=place.key)
        try:
            content: bytes = answer["Body"].read()
        except (BotoCoreError, OSError) as error:  # the connection broke
            raise self._explained(error, place) from error
        return content

    def exists(self, place: Place) -> bool:
        try:
            self._call("head_object", place, Bucket=place.bucket, Key=place.key)
        except AbsentObjectError:
            return False
        return True

    def upload(self, path: Path, place: Place) -> None:
        """A file to an object, in parallel parts where it is large."""
        self._call_path("upload_file", place, str(path), place.bucket, place.key)

    def download(self, place: Place, path: Path) -> None:
        """An object to a file, in parallel ranges where it is large.

        Raises:
            AbsentObjectError: there is none.
            StorageAwayError: as for all methods, or another one came into its place meanwhile.
        """
        self._call_path("download_file", place, place.bucket, place.key, str(path))

    def copy(self, source: Place, target: Place) -> None:
        """Copies within the server; no byte passes through this machine."""
        self._call(
            "copy_object",
            source,
            Bucket=target.bucket,
            Key=target.key,
            CopySource={"Bucket": source.bucket, "Key": source.key},
        )

    def listed(self, folder: Place) -> Iterator[Listed]:
        """All objects below a folder."""
        pages = self._client.get_paginator("list_objects_v2")
        prefix = f"{folder.key.rstrip('/')}/" if folder.key else ""
        try:
            for page in pages.paginate(Bucket=folder.bucket, Prefix=prefix):
                for entry in page.get("Contents", ()):
                    at_ms = int(entry["LastModified"].timestamp() * 1000)
                    yield Listed(entry["Key"], int(entry["Size"]), at_ms)
        except (ClientError, BotoCoreError) as error:
            raise self._explained(error, folder) from error

    def delete(self, place: Place) -> None:
        self._call("delete_object", place, Bucket=place.bucket, Key=place.key)

    def _call(self, method: str, place: Place, **arguments: Any) -> Any:
        try:
            return getattr(self._client, method)(**arguments)
        except (ClientError, BotoCoreError) as error:
            raise self._explained(error, place) from error

    def _call_path(self, method: str, place: Place, *arguments: str) -> None:
        try:
            getattr(self._client, method)(*arguments)
        except (ClientError, BotoCoreError) as error:
            raise self._explained(error, place) from error
        except S3DownloadFailedError as error:
            where, remedy = f"{place} at {self._endpoint}", "ask again"
            what = "the object was replaced while it was read"
            raise StorageAwayError(where, what, got=str(error), remedy=remedy) from error
        except Boto3Error as error:  # boto3 wraps what the server said of a part
            said = error.__context__
            raise self._explained(said if isinstance(said, Exception) else error, place) from error

    def _explained(self, error: Exception, place: Place) -> Exception:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
        if code in _ABSENT and place.key:
            return AbsentObjectError(str(place))
        where = f"{place} at {self._endpoint}"
        if code in _REFUSED:
            remedy = "check settings.s3_credentials_file (profile default)"
            what = "the S3 server refuses these keys"
            return StorageRefusesError(where, what, got=code, remedy=remedy)
        if code in _ABSENT | {"NoSuchBucket"}:
            remedy = "create it, or set HOPETUNE_S3_BUCKET"
            return StorageRefusesError(where, "no such bucket", got=place.bucket, remedy=remedy)
        if isinstance(error, NoCredentialsError):
            remedy = (
                "start the local servers with `hopetune up`, or set HOPETUNE_S3_CREDENTIALS_FILE"
            )
            return StorageRefusesError(where, "no S3 credentials", remedy=remedy)
        remedy = "check settings.s3_endpoint and that the server is up (`hopetune status`)"
        status = 0 if not isinstance(error, ClientError) else _http_status(error)
        refuses = 400 <= status < 500 and status not in _BUSY and code != "RequestTimeout"
        kind = StorageRefusesError if refuses else StorageAwayError
        return kind(where, "the S3 server cannot be used", got=str(error), remedy=remedy)


_REGION = "us-east-1"
"""Where nobody names one; most servers that are not AWS's take any."""


def _session(settings: Settings) -> Session:
    """A session with the keys and region of the settings, else with those that AWS's library finds
    by itself.

    Raises:
        StorageRefusesError: the settings name a file of keys that is not there.
    """
    # By itself it does not know AWS_REGION, as AWS's other tools do.
    variables = {"region": ("region", ["AWS_REGION", "AWS_DEFAULT_REGION"], None, None)}
    core, profile = botocore.session.get_session(variables), None
    credentials_file, region = settings.s3_credentials_file, settings.s3_region
    if credentials_file:
        if not credentials_file.is_file():
            raise StorageRefusesError(str(credentials_file), "no S3 credentials file")
        core.set_config_variable("credentials_file", str(credentials_file))
        core.set_config_variable("config_file", os.devnull)
        # Said outright, it keeps keys and profiles of the environment, meant for other servers,
        # from coming first.
        profile = "default"
    else:
        region = region or core.get_config_variable("region")
    return Session(botocore_session=core, profile_name=profile, region_name=region or _REGION)


def _keys_file_of_aws() -> Path:
    """The file in which AWS's library looks for keys by itself."""
    named = botocore.session.get_session().get_config_variable("credentials_file")
    return Path(os.path.expanduser(named))  # noqa: PTH111 - Path's fails where there is no home


def _version(file: Path) -> tuple[int, int] | None:
    """What changes with a file's content; none where there is none, or none yet."""
    try:
        return version_of(file) if file.stat().st_size else None
    except OSError:
        return None


def _http_status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
