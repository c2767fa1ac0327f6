"""The GPUs of this machine, as far as they show without asking their driver."""

import os
import re
from pathlib import Path

_CUDA_OF_WINDOWS = Path("/usr/lib/wsl/lib/libcuda.so.1")
"""Lies there under WSL2 where Windows has an NVIDIA driver."""


def real_gpus(devices: Path = Path("/dev"), cuda_of_windows: Path = _CUDA_OF_WINDOWS) -> int:
    """How many NVIDIA GPUs this machine has and lets us see; under WSL2 one stands for all, as
    they share one device."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return 0
    if (devices / "dxg").exists() and cuda_of_windows.exists():
        return 1
    return sum(bool(re.fullmatch(r"nvidia\d+", entry.name)) for entry in devices.iterdir())
