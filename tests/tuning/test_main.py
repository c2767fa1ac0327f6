"""The command itself."""

import importlib.metadata

from typer.testing import CliRunner

from tuning.cli.main import app


def test_it_says_its_version() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.stdout) == (
        0,
        f"hopetune {importlib.metadata.version('hopetune')}\n",
    )


def test_its_help_says_what_it_is_for_and_names_all_commands() -> None:
    said = CliRunner().invoke(app, ["--help"]).stdout
    assert "Finds the best head-pose network" in said
    for name in ("up", "submit", "run", "show", "resume", "extend", "promote", "predict", "gc"):
        assert f" {name} " in said
