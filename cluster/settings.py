"""Where everything is: the one reader of the environment and of the settings file.

Environment variables (``HOPETUNE_STUDY_URL`` …) win over the one settings file, which is
``$HOPETUNE_SETTINGS`` where that is set and ``<state_dir>/settings.toml`` otherwise. For the local
servers ``hopetune up`` writes that file; for existing servers a person writes it. It is flat TOML,
one line a field of :class:`Settings`.
"""

import difflib
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from usererror import UserError

ENV_PREFIX = "HOPETUNE_"
SETTINGS_VARIABLE = "HOPETUNE_SETTINGS"
STATE_DIR_VARIABLE = "HOPETUNE_STATE_DIR"
SETTINGS_FILE_NAME = "settings.toml"
DEFAULT_STATE_DIR = Path("~/.hopetune")

RAY_ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray replaces 127.0.0.1 by the host's outer address, and listens there, unless this says no
(its name tells of its first use; read in ray 2.60's `services.get_node_ip_address`)."""

_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")

_WRITTEN_BY_UP = "# Written by `hopetune up`: holds passwords, keep it private."


class Settings(BaseSettings):
    """Addresses and credentials of the servers that searches use; secrets never show in repr."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    state_dir: Path = Field(default=DEFAULT_STATE_DIR, validate_default=True)
    study_url: SecretStr | None = None
    """SQLAlchemy URL of the Optuna storage, e.g. ``postgresql+psycopg://…``; holds a password."""
    mlflow_uri: str | None = None
    mlflow_artifact_root: str | None = None
    """The ``s3://`` place where the MLflow server keeps artifacts."""
    mlflow_username: str | None = None
    mlflow_password: SecretStr | None = None
    s3_endpoint: str | None = None
    s3_bucket: str = "hopetune"
    s3_credentials_file: Path | None = None
    """An AWS shared credentials file; its profile ``default`` is used, and no ``AWS_…`` variable
    or file beside it. Without one, keys are looked for where AWS's own tools look."""
    s3_region: str | None = None
    """Without one it is ``us-east-1`` beside an ``s3_credentials_file``, else what AWS's own tools
    take."""
    ray_address: str | None = None
    """``host:port`` of the cluster's GCS."""
    ray_jobs_address: str | None = None
    """``http://host:port`` of the Ray dashboard, which takes jobs."""
    ray_token_file: Path | None = None
    spool_bytes: int = Field(default=20 * 2**30, gt=0)
    """Checkpoints of a node that may wait on its disk for the store; default 20 GiB, untuned: 28
    epochs of the largest network (ResNet152, 720 MB)."""

    @field_validator("state_dir", "s3_credentials_file", "ray_token_file")
    @classmethod
    def _expand_home(cls, path: Path | None) -> Path | None:
        try:
            return None if path is None else path.expanduser().absolute()
        except RuntimeError as error:
            raise ValueError(f"no such home: {path}") from error

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 (the signature is pydantic's)
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The file's values arrive through __init__, so the environment has to come first.
        return env_settings, init_settings

    def require(self, name: str) -> str:
        """The value of a field as text (secrets in clear).

        Raises:
            UserError: the field is not set; says how to set it.
        """
        value = getattr(self, name)
        if value is None:
            raise UserError(
                f"settings.{name}",
                "not set",
                remedy=f"start the local servers with `hopetune up`, or set {env_name(name)}",
            )
        return value.get_secret_value() if isinstance(value, SecretStr) else str(value)

    def _ray_is_local(self) -> bool:
        return (self.ray_address or "").startswith(("127.0.0.1:", "localhost:"))

    def enter_environment(self) -> None:
        """Have Ray, boto3 and MLflow in this process, once imported, use these servers."""
        if self.ray_token_file:
            os.environ.pop("RAY_AUTH_TOKEN", None)  # Ray would prefer it to the file
        os.environ.update(self.client_environment())

    def client_environment(self) -> dict[str, str]:
        """What Ray, boto3 and MLflow read from a client's environment; paths, never secrets."""
        found = {
            "RAY_AUTH_MODE": "token" if self.ray_token_file else None,
            "RAY_AUTH_TOKEN_PATH": self.ray_token_file,
            # Off, Ray takes a loopback address as it is; on, it looks for the head at this
            # machine's address on the network, where a local head does not listen.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0" if self._ray_is_local() else None,
            "AWS_SHARED_CREDENTIALS_FILE": self.s3_credentials_file,
            "AWS_ENDPOINT_URL_S3": self.s3_endpoint,
            "AWS_DEFAULT_REGION": self.s3_region,
            "MLFLOW_S3_ENDPOINT_URL": self.s3_endpoint,
            "MLFLOW_TRACKING_URI": self.mlflow_uri,
        }
        environment = {name: str(value) for name, value in found.items() if value is not None}
        if self.ray_address and self.ray_address.startswith("127.0.0.1:"):
            environment |= RAY_ON_LOOPBACK
        return environment


def env_name(field: str) -> str:
    """The environment variable that sets a field."""
    return ENV_PREFIX + field.upper()


def at(settings: Settings, ray_jobs_address: str | None) -> Settings:
    """Settings with another cluster for jobs, if one is named: it is not shown the token of the
    settings' own, only one that the environment names."""
    if not ray_jobs_address:
        return settings
    # Without an address of its own the token is of no other cluster that is known.
    is_its = not settings.ray_jobs_address or is_own(settings, ray_jobs_address)
    for_it = settings.ray_token_file if is_its or _variable("ray_token_file") else None
    return settings.model_copy(
        update={"ray_jobs_address": ray_jobs_address, "ray_token_file": for_it}
    )


def is_own(settings: Settings, ray_jobs_address: str | None) -> bool:
    """Whether an address is known to be that of the settings' own cluster; without one it is."""
    own = settings.ray_jobs_address or ""
    return not ray_jobs_address or _plain(ray_jobs_address) == _plain(own)


def _plain(address: str) -> str:
    return address.rstrip("/").replace("//localhost", "//127.0.0.1")


def state_dir_of_environment() -> Path:
    """The state directory where no settings file tells another.

    Raises:
        UserError: it is below the home of a user who is not known.
    """
    named = os.environ.get(STATE_DIR_VARIABLE)
    return _absolute(Path(named or DEFAULT_STATE_DIR), STATE_DIR_VARIABLE)


def settings_file(state_dir: Path | None = None) -> Path:
    """The settings file that applies; an explicit ``state_dir`` wins over the environment.

    Raises:
        UserError: it is below the home of a user who is not known.
    """
    if state_dir is None and (named := os.environ.get(SETTINGS_VARIABLE)):
        return _absolute(Path(named), SETTINGS_VARIABLE)
    folder = state_dir_of_environment() if state_dir is None else state_dir.expanduser().absolute()
    return folder / SETTINGS_FILE_NAME


def _absolute(path: Path, variable: str) -> Path:
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:
        raise UserError(f"${variable}", "names a home that is not known", got=str(path)) from error


def load_settings(state_dir: Path | None = None) -> Settings:
    """Settings from the environment and from the one settings file.

    Whoever takes them up asks servers next, through boto3, MLflow and Ray, which obey a proxy of
    the environment: from here on this process asks those on its own machine directly.

    Raises:
        UserError: the file named by ``$HOPETUNE_SETTINGS`` is absent, or a file or variable holds
            what cannot be read.
    """
    os.environ.update(beside_proxies(os.environ))
    path = settings_file(state_dir)
    values = read_settings_file(path)
    if not values and state_dir is None and os.environ.get(SETTINGS_VARIABLE):
        raise UserError(str(path), "no settings file", rule=f"${SETTINGS_VARIABLE} names it")
    if state_dir is not None:
        values["state_dir"] = str(state_dir)
    try:
        return Settings(**values)
    except ValidationError as error:
        raise _field_error(error, path) from error


def beside_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that keep requests to this machine's own servers off a proxy, with what an
    environment says of other hosts."""
    # Programs differ in which of the two they look at first.
    either = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    found = {}
    for name in ("NO_PROXY", "no_proxy"):
        said = environment.get(name) or either
        hosts = [host.strip() for host in said.split(",") if host.strip()]
        # A lone * means all hosts, beside others none.
        missing = [] if hosts == ["*"] else [own for own in _LOOPBACK_NAMES if own not in hosts]
        found[name] = ",".join(hosts + missing)
    return found


def read_settings_file(path: Path) -> dict[str, Any]:
    """The fields that a settings file sets; empty where there is no file.

    Raises:
        UserError: unreadable, not TOML, or an unknown field.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(str(path), "cannot be read", got=str(error)) from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(
            str(path),
            f"not a settings file ({error})",
            rule="flat TOML",
            remedy="correct it, or delete it and run `hopetune up` again",
        ) from error
    legal = list(Settings.model_fields)
    for name in values:
        if name not in legal:
            close = difflib.get_close_matches(name, legal, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise UserError(
                f"{path}: {name}", f"unknown field{hint}", rule=f"legal: {', '.join(legal)}"
            )
    return values


def to_toml(settings: Settings) -> str:
    """The text of a settings file, secrets in clear: write it with mode 600."""
    lines = [_WRITTEN_BY_UP]
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, int):
            lines.append(f"{name} = {value}")
        elif value is not None:
            # A TOML basic string is a JSON string, as long as nothing becomes a surrogate pair.
            lines.append(f"{name} = {json.dumps(settings.require(name), ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def is_written_by_up(path: Path) -> bool:
    """Whether a settings file is the local servers' own, not a person's."""
    try:
        with path.open(encoding="utf-8") as file:
            return file.readline().rstrip("\n") == _WRITTEN_BY_UP
    except (OSError, UnicodeDecodeError):
        return False


def _variable(field: str) -> str | None:
    """The environment variable, in whatever case, that sets a field, if one does."""
    return next((v for v in os.environ if v.upper() == env_name(field) and os.environ[v]), None)


def _field_error(error: ValidationError, path: Path) -> UserError:
    first = error.errors(include_input=False)[0]
    field = str(first["loc"][0]) if first["loc"] else "settings"
    variable = _variable(field)
    where = f"${variable}" if variable else f"{path}: {field}"
    return UserError(where, str(first["msg"]))
