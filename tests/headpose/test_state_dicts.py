"""Files of strangers: nothing in them is executed, and everything in them must fit."""

import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from headpose.networks.state_dicts import load_strictly, read_state_dict
from usererror import UserError


class Hostile:
    """Unpickling this creates a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.mark),)


def test_a_hostile_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "was executed"
    path = tmp_path / "snapshot.pkl"
    torch.save({"fc_yaw.weight": Hostile(mark)}, path)
    with pytest.raises(UserError, match=r"cannot be read as weights.*pickled code is never run"):
        read_state_dict(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)  # the file really is hostile
    assert mark.exists()


def test_a_whole_pickled_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(UserError, match="cannot be read as weights"):
        read_state_dict(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_tensors_come_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"some weights{suffix}"
    state = nn.Linear(2, 3).state_dict()
    if suffix == ".pth":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(dict(state), path)
    read = read_state_dict(path)
    assert read.keys() == state.keys()
    assert all(torch.equal(read[key], state[key]) for key in state)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_a_users_error(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"weights{suffix}"
    state = nn.Linear(20, 30).state_dict()
    if suffix == ".pth":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(dict(state), path)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(UserError, match=r"weights\.\w+: cannot be read as weights"):
        read_state_dict(path)


def test_any_damage_to_an_old_pickle_is_a_users_error_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(nn.Linear(3, 2).state_dict(), path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        place = int(torch.randint(len(whole), (1,), generator=generator))
        damaged[place] = int(torch.randint(256, (1,), generator=generator))
        path.write_bytes(damaged)
        try:
            read_state_dict(path)
        except UserError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("content", [[1, 2], {"weight": 1.0}, {"state_dict": {}}, torch.zeros(2)])
def test_anything_but_named_tensors_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(UserError, match="something other than named tensors"):
        read_state_dict(path)


def test_a_missing_file_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_state_dict(tmp_path / "absent.pth")


def test_keys_and_shapes_must_be_exactly_right_and_nothing_is_loaded_otherwise() -> None:
    net = nn.Linear(2, 3)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(UserError) as error:
        load_strictly(net, {"weight": torch.ones(3, 4), "extra": torch.ones(1)}, "file.pth")
    for part in (
        "file.pth: ",
        "1 missing (bias)",
        "1 left over (extra)",
        "of another shape (weight",
    ):
        assert part in str(error.value)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
