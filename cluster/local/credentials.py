"""Random secrets of the local servers, each in a file of mode 600, made once and kept."""

import configparser
import secrets
from dataclasses import dataclass
from pathlib import Path

from cluster.local.files import write_private
from usererror import UserError

_SECRET_BYTES = 24  # 192 bits: beyond guessing (NIST SP 800-63B asks for 112)


@dataclass(frozen=True, repr=False)
class Credentials:
    """The secrets, and the files that servers and clients read them from."""

    postgres_admin_password: str
    postgres_password: str
    s3_access_key: str
    s3_secret_key: str
    s3_credentials_file: Path
    seaweed_internal_key: str
    ray_token_file: Path
    ray_token: str


def load_or_create(folder: Path) -> Credentials:
    """Read the secrets, making those that are missing.

    Raises:
        UserError: a file of them is damaged.
    """
    s3_file, token_file = folder / "s3_credentials", folder / "ray_token"
    if not s3_file.exists():
        write_private(s3_file, _s3_profile())
    access_key, secret_key = _s3_keys(s3_file)
    return Credentials(
        postgres_admin_password=_secret(folder / "postgresql_admin_password"),
        postgres_password=_secret(folder / "postgresql_password"),
        s3_access_key=access_key,
        s3_secret_key=secret_key,
        s3_credentials_file=s3_file,
        seaweed_internal_key=_secret(folder / "seaweed_internal_key"),
        ray_token_file=token_file,
        ray_token=_secret(token_file),
    )


def _secret(path: Path) -> str:
    if not path.exists():
        write_private(path, secrets.token_hex(_SECRET_BYTES))
    path.chmod(0o600)
    text = _read(path)
    if len(text) != 2 * _SECRET_BYTES or not text.isalnum():
        raise _damaged(path, f"{2 * _SECRET_BYTES} letters and digits")
    return text


def _s3_profile() -> str:
    # The region is a formality that boto3 insists on for some calls.
    return (
        "[default]\n"
        f"aws_access_key_id = {secrets.token_hex(10)}\n"
        f"aws_secret_access_key = {secrets.token_hex(_SECRET_BYTES)}\n"
        "region = us-east-1\n"
    )


def _s3_keys(path: Path) -> tuple[str, str]:
    path.chmod(0o600)
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(_read(path))
        profile = parser["default"]
        return profile["aws_access_key_id"], profile["aws_secret_access_key"]
    except (configparser.Error, KeyError) as error:
        raise _damaged(path, "an AWS credentials file with a profile 'default'") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, "a readable text file") from error


def _damaged(path: Path, rule: str) -> UserError:
    return UserError(
        str(path),
        "damaged secret",
        rule=f"it should be {rule}",
        remedy="restore it, or start with another state directory",
    )
