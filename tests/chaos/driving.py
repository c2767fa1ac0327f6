"""The driver of a search as a process of its own, and what it says, with the time of each line."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_COMMAND = "from tuning.cli.main import main; main()"


@dataclass(frozen=True)
class Line:
    """A line of the driver's log; ``at_s`` seconds since the epoch."""

    at_s: float
    text: str


def hopetune(*arguments: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs a command line to its end."""
    return subprocess.run(
        [sys.executable, "-c", _COMMAND, *arguments],
        env=os.environ | dict(environment),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


class Driver:
    """``hopetune run`` of one search; ``hopetune resume`` once the study knows it."""

    def __init__(self, file: Path, name: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self.lines: list[Line] = []
        self._file = file
        self._environment = dict(environment)
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def start(self, *, is_known: bool = False) -> None:
        """Begins the search, or goes on with it where the study knows it."""
        run = ("run", str(self._file), "--name", self.name)
        resume = ("resume", self.name, "--foreground")
        self._process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, *(resume if is_known else run)],
            env=os.environ | self._environment | {"PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        return None if self._process is None else self._process.poll()

    @property
    def pid(self) -> int:
        return 0 if self._process is None else self._process.pid

    def kill(self) -> None:
        """SIGKILL, and waits until it is gone."""
        if self._process is not None:
            self._process.kill()
            self.wait(10)

    def wait(self, seconds: float) -> bool:
        """Whether it ended within that time."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
        if not self.is_alive and self._reader is not None:
            self._reader.join(5)
        return not self.is_alive

    def said(self, after_s: float = 0.0) -> list[Line]:
        return [line for line in list(self.lines) if line.at_s >= after_s]

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for text in process.stdout:
                self.lines.append(Line(time.time(), text.rstrip("\n")))
