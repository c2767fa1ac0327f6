"""What every benchmark does with its rows: print them, and keep them with hardware and command."""

import argparse
import datetime
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


def hardware() -> str:
    """The machine in a line: processor, cores, GPU, versions."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text("utf-8"))
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    cores = len(os.sched_getaffinity(0))
    name = model[1].strip() if model else platform.machine()
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    return f"{name}, {cores} cores, {gpu}; {versions}"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [[*columns], ["---"] * len(columns), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def commit() -> str:
    """What was run, as git names it; where there is no git, that is all that is not known."""
    asked = ["git", "describe", "--always", "--dirty"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def keep(what: str, text: str, arguments: argparse.Namespace, module: str | None = None) -> None:
    """Prints a result, and writes it below ``benchmarks/results`` where ``--keep`` was given.

    Args:
        what: name of the benchmark, of the script.
        text: Markdown: tables, and what they show.
        arguments: of the script; ``keep`` names the hardware in the file's name.
        module: what was run, where it is not a script of this folder.
    """
    command = f"python -m {module or f'benchmarks.{what}'} " + " ".join(sys.argv[1:])
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    head = (
        f"# {what}\n\n{hardware()}\n\n"
        f"{date}, commit {commit()}, load of the machine at the end {load} (1, 5, 15 min)\n\n"
        f"    {command.strip()}\n\n"
    )
    sys.stdout.write(head + text + "\n")
    if arguments.keep:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{what}_{arguments.keep}_{date}.md"
        path.write_text(head + text + "\n", encoding="utf-8")


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with what all benchmarks understand."""
    found = argparse.ArgumentParser(description=description)
    found.add_argument("--keep", metavar="HARDWARE", help="write the result, named by hardware")
    return found
