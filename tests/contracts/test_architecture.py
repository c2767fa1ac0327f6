"""Documents are kept true: every file and name that ARCHITECTURE.md mentions exists."""

import ast
import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(
    set(re.findall(r"`([\w/]+\.py)::(\w+)`", (ROOT / "ARCHITECTURE.md").read_text("utf-8")))
)


def test_the_document_names_at_least_nine_files() -> None:
    assert len({file for file, _ in NAMES}) >= 9


@pytest.mark.parametrize(("file", "name"), NAMES)
def test_each_name_exists_in_its_file(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert name in defined


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md"])
def test_links_lead_to_files(document: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / document).read_text("utf-8")):
        assert (ROOT / target).exists(), target


def test_the_readme_names_only_commands_that_exist() -> None:
    from typer.main import get_command

    from tuning.cli.main import app

    known = get_command(app).commands  # type: ignore[attr-defined]
    named = re.findall(r"hopetune ([a-z]+)", (ROOT / "README.md").read_text("utf-8"))
    assert named
    assert set(named) <= set(known)


def test_the_readme_tells_every_key_of_a_search_file_with_its_default() -> None:
    from pydantic import BaseModel

    from headpose.config import TrainConfig
    from tuning.published import Published
    from tuning.space import Choices, Range
    from tuning.spec import SearchSpec

    def key(name: str, default: object) -> str:
        if not isinstance(default, str | int | float):
            return name
        return f"{name}: {str(default).lower() if isinstance(default, bool) else default}"

    parts = {"parameters": (Range, Choices), "published": (Published,)}
    for name, field in SearchSpec.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            parts[name] = (field.annotation,)
    expected = {
        section: {key(n, f.default) for part in found for n, f in part.model_fields.items()}
        for section, found in parts.items()
    }
    expected["fixed"] = {key(f.name, f.default) for f in dataclasses.fields(TrainConfig)}
    text = (ROOT / "README.md").read_text("utf-8").split("### What a search file may say\n")[1]
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", text.split("\n## ")[0], re.MULTILINE)
    told = {section: set(re.findall("`([^`]+)`", cell)) for section, cell in rows}
    assert set(told) == set(SearchSpec.model_fields)
    for section, keys in expected.items():
        assert keys <= told[section]
        assert {t for t in told[section] if re.fullmatch(r"\w+: [\w.-]+", t)} <= keys


def test_every_search_file_opens_with_why_cost_expectation_and_command() -> None:
    for path in sorted((ROOT / "search_spaces").glob("*.yaml")):
        lines = [line for line in path.read_text("utf-8").splitlines() if line.startswith("# ")]
        for field in ("Why:", "Costs:", "Expect:", "Command:"):
            assert any(line.startswith(f"# {field}") for line in lines), f"{path}: {field}"


def test_headpose_trains_without_ray_optuna_mlflow_and_boto3() -> None:
    """In a clean process in which those four cannot be imported."""
    code = (
        "import sys\n"
        "for name in ('ray', 'optuna', 'mlflow', 'boto3'): sys.modules[name] = None\n"
        "import headpose.training, headpose.evaluate, headpose.predict, headpose.draw\n"
        "import headpose.data.synthetic, headpose.networks.snapshots\n"
        "bad = [n for n in sys.modules if n.split('.')[0] in ('tuning', 'cluster')]\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=100)


def test_cluster_never_imports_ray_tune() -> None:
    """import-linter cannot forbid a part of a foreign package."""
    for path in (ROOT / "cluster").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("ray.tune"), path
            elif isinstance(node, ast.Import):
                assert not any(a.name.startswith("ray.tune") for a in node.names), path
