"""What a machine has: CPUs that the local head may claim, GPUs."""

import os
from pathlib import Path

import pytest

from cluster.cpus import usable_cpus
from cluster.gpus import real_gpus

FREE = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "max 100000\n"}, FREE),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, FREE),
        ({"cpu/cpu.cfs_quota_us": "150000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({}, FREE),
    ],
)
def test_a_containers_quota_counts(files: dict[str, str], expected: int, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cpus(tmp_path) == expected


def test_gpus_show_as_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert real_gpus(tmp_path, tmp_path / "libcuda.so.1") == 0
    (tmp_path / "nvidia0").touch()
    (tmp_path / "nvidiactl").touch()
    assert real_gpus(tmp_path, tmp_path / "libcuda.so.1") == 1


def test_a_gpu_of_windows_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "dxg").touch()
    assert real_gpus(tmp_path, tmp_path / "libcuda.so.1") == 0, "of another maker"
    (tmp_path / "libcuda.so.1").touch()
    assert real_gpus(tmp_path, tmp_path / "libcuda.so.1") == 1
