"""Settings: where values come from, who wins, and what a mistake says."""

import os
import urllib.request
from pathlib import Path

import pytest
import requests

from cluster.settings import (
    Settings,
    at,
    beside_proxies,
    is_written_by_up,
    load_settings,
    read_settings_file,
    to_toml,
)
from usererror import UserError


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("HOPETUNE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOPETUNE_STATE_DIR", str(tmp_path))
    for name in ("NO_PROXY", "no_proxy"):  # which taking up settings changes
        monkeypatch.setenv(name, "")


def test_nothing_set_gives_defaults(tmp_path: Path) -> None:
    settings = load_settings()
    assert settings.state_dir == tmp_path
    assert settings.s3_bucket == "hopetune"
    assert settings.study_url is None


def test_file_is_read_and_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "settings.toml").write_text('mlflow_uri = "http://file"\ns3_bucket = "mine"\n')
    monkeypatch.setenv("HOPETUNE_MLFLOW_URI", "http://environment")
    settings = load_settings()
    assert (settings.mlflow_uri, settings.s3_bucket) == ("http://environment", "mine")


def test_settings_variable_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a folder" / "other.toml"
    file.parent.mkdir()
    file.write_text('ray_address = "head:6379"\nstate_dir = "/somewhere"\n')
    monkeypatch.setenv("HOPETUNE_SETTINGS", str(file))
    monkeypatch.delenv("HOPETUNE_STATE_DIR")
    settings = load_settings()
    assert settings.ray_address == "head:6379"
    assert settings.state_dir == Path("/somewhere")


def test_named_file_that_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOPETUNE_SETTINGS", str(tmp_path / "absent.toml"))
    with pytest.raises(UserError, match=r"absent\.toml: no settings file"):
        load_settings()


def test_required_but_missing_says_what_to_do() -> None:
    with pytest.raises(UserError, match=r"hopetune up.*HOPETUNE_STUDY_URL"):
        load_settings().require("study_url")


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOPETUNE_STUDY_URL", "postgresql://me:s3cr3t@host/db")
    settings = load_settings()
    assert "s3cr3t" not in repr(settings) + str(settings)
    assert settings.require("study_url") == "postgresql://me:s3cr3t@host/db"
    assert not any("s3cr3t" in value for value in settings.client_environment().values())


def test_misspelt_field(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text('mlflow_url = "http://x"\n')
    with pytest.raises(UserError, match="mlflow_url: unknown field; did you mean 'mlflow_uri'"):
        load_settings()


@pytest.mark.parametrize("content", [b"study_url = ", b"\xff\xfe\x00", b"just words"])
def test_damaged_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "settings.toml").write_bytes(content)
    with pytest.raises(UserError, match=r"settings\.toml: "):
        load_settings()


def test_wrong_type_names_field_and_hides_value(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("study_url = 12345678\n")
    with pytest.raises(UserError, match="study_url") as caught:
        load_settings()
    assert "12345678" not in str(caught.value)


def test_written_file_reads_back(tmp_path: Path) -> None:
    settings = Settings(
        state_dir=tmp_path / 'a "quoted" folder \\ ü 𝄞',
        study_url="postgresql://x:y@z/w",  # type: ignore[arg-type]
        ray_token_file=tmp_path / "token",
    )
    file = tmp_path / "settings.toml"
    file.write_text(to_toml(settings), encoding="utf-8")
    assert is_written_by_up(file)
    assert Settings.model_construct(**read_settings_file(file)).s3_bucket == "hopetune"
    assert read_settings_file(file)["study_url"] == "postgresql://x:y@z/w"
    assert read_settings_file(file)["state_dir"] == str(settings.state_dir)


def test_a_persons_file_is_not_ours(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    assert not is_written_by_up(file)
    file.write_text('ray_address = "head:6379"\n')
    assert not is_written_by_up(file)


def test_client_environment_keeps_local_ray_on_loopback() -> None:
    local = Settings(ray_address="127.0.0.1:6379").client_environment()
    remote = Settings(ray_address="10.0.0.1:6379").client_environment()
    assert set(local) - set(remote) == {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"}


def test_the_region_reaches_whoever_else_uses_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's client puts artifacts there by itself."""
    assert "AWS_DEFAULT_REGION" not in load_settings().client_environment()
    monkeypatch.setenv("HOPETUNE_S3_REGION", "eu-west-1")
    assert load_settings().client_environment()["AWS_DEFAULT_REGION"] == "eu-west-1"


def test_a_token_of_the_shell_is_not_preferred_to_the_clusters_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "another cluster's")
    Settings().enter_environment()
    assert "RAY_AUTH_TOKEN" in os.environ
    Settings(ray_token_file=tmp_path / "token").enter_environment()
    assert "RAY_AUTH_TOKEN" not in os.environ
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == str(tmp_path / "token")


def test_a_token_is_shown_to_its_own_cluster_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings.toml").write_text(
        'ray_jobs_address = "http://own:8265"\nray_token_file = "/own"\n'
    )
    settings = load_settings()
    for own in (None, "http://own:8265", "http://own:8265/"):
        assert at(settings, own).ray_token_file == Path("/own")
    same = settings.model_copy(update={"ray_jobs_address": "http://127.0.0.1:8265"})
    assert at(same, "http://localhost:8265").ray_token_file == Path("/own")
    nameless = settings.model_copy(update={"ray_jobs_address": None})
    assert at(nameless, "http://own:8265").ray_token_file == Path("/own")
    other = at(settings, "http://other:8265")
    assert (other.ray_jobs_address, other.ray_token_file) == ("http://other:8265", None)
    monkeypatch.setenv("HOPETUNE_RAY_TOKEN_FILE", "/others")
    assert at(load_settings(), "http://other:8265").ray_token_file == Path("/others")


@pytest.mark.parametrize("variable", ["HOPETUNE_STATE_DIR", "HOPETUNE_SETTINGS"])
def test_a_home_that_nobody_has(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "~nosuchuser/x")
    with pytest.raises(UserError, match=rf"{variable}: names a home .*; got '~nosuchuser/x'"):
        load_settings()
    monkeypatch.delenv(variable)
    monkeypatch.setenv("HOPETUNE_RAY_TOKEN_FILE", "~nosuchuser/x")
    with pytest.raises(UserError, match=r"RAY_TOKEN_FILE: .*~nosuchuser"):
        load_settings()


@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_servers_of_this_machine_are_not_asked_through_a_proxy(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv(variable, "office.example")
    load_settings()
    for host, is_direct in (
        ("127.0.0.1:8333", True),
        ("localhost:5000", True),
        ("mlflow.office.example", True),
        ("elsewhere.example", False),
    ):
        url = f"http://{host}/"
        # As MLflow and Ray's job client ask, and as boto3 does.
        assert requests.utils.should_bypass_proxies(url, no_proxy=None) is is_direct, host
        assert bool(urllib.request.proxy_bypass(host)) is is_direct, host


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, "127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "a, b"}, "a,b,127.0.0.1,localhost,::1"),
        ({"no_proxy": "localhost"}, "localhost,127.0.0.1,::1"),
        ({"no_proxy": "*", "NO_PROXY": ""}, "*"),
    ],
)
def test_what_is_kept_off_a_proxy(said: dict[str, str], expected: str) -> None:
    kept = beside_proxies(said)
    assert kept == {"NO_PROXY": expected, "no_proxy": expected}
    assert beside_proxies(kept) == kept
    assert beside_proxies({"NO_PROXY": "a", "no_proxy": "b"})["no_proxy"].startswith("b,127")
