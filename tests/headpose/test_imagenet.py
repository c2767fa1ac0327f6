"""ImageNet weights: from a file, from a folder, from torchvision; never silently absent."""

import copy
import urllib.request
from pathlib import Path
from urllib.error import URLError

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torchvision import models

from headpose.networks.backbones import make_trunk
from headpose.networks.imagenet import imagenet_state
from headpose.networks.names import AT_PLUS_MINUS_ONE, FROM_TIMM, legal_backbones
from headpose.networks.network import HeadposeNet, build_network
from headpose.normalisation import IMAGENET_MEAN, IMAGENET_STD
from usererror import NotHereError, UserError


def classifier_state(backbone: str) -> dict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(99)
        classifier: nn.Module = models.get_model(backbone, weights=None)
    return dict(classifier.state_dict())


def assert_trunk_is(net: HeadposeNet, state: dict[str, Tensor], cut: str = "") -> None:
    own = net.trunk.state_dict()
    assert own
    for key, value in own.items():
        assert torch.equal(value, state[cut + key]), key


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_body_is_what_the_file_says(tmp_path: Path, backbone: str, suffix: str) -> None:
    state = classifier_state(backbone)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    assert_trunk_is(build_network(backbone, 6, imagenet=str(path), seed=1), state)


def test_a_file_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    first = classifier_state("resnet18")
    torch.save(first, path)
    assert_trunk_is(build_network("resnet18", 6, imagenet=str(tmp_path), seed=1), first)
    second = {key: value + 1 for key, value in first.items()}
    torch.save(second, path)
    assert_trunk_is(build_network("resnet18", 6, imagenet=str(tmp_path), seed=1), second)


def test_squeezenet_keeps_its_convolutions_only(tmp_path: Path) -> None:
    state = classifier_state("squeezenet1_1")
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    net = build_network("squeezenet1_1", 6, imagenet=str(path), seed=1)
    assert_trunk_is(net, state, cut="features.")


def test_the_heads_depend_on_the_seed_and_not_on_the_file(tmp_path: Path) -> None:
    torch.save(classifier_state("resnet18"), tmp_path / "resnet18.pth")
    scratch = build_network("resnet18", 6, seed=1)
    loaded = build_network("resnet18", 6, imagenet=str(tmp_path), seed=1)
    for mine, other in zip(scratch.head_parameters(), loaded.head_parameters(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("backbone", ["resnet18", "densenet121"])
def test_files_from_before_the_counters_of_batch_normalisation_load(
    tmp_path: Path, backbone: str
) -> None:
    state = classifier_state(backbone)
    old = {
        old_densenet_name(key): value
        for key, value in state.items()
        if not key.endswith(".num_batches_tracked")
    }
    assert len(old) < len(state)
    torch.save(old, tmp_path / f"{backbone}.pth")
    assert_trunk_is(build_network(backbone, 6, imagenet=str(tmp_path)), state)


def test_nothing_but_a_counter_may_be_missing(tmp_path: Path) -> None:
    state = classifier_state("resnet18")
    del state["bn1.num_batches_tracked"], state["bn1.running_mean"]
    torch.save(state, tmp_path / "resnet18.pth")
    with pytest.raises(UserError, match=r"got '1 missing \(bn1\.running_mean\)'"):
        build_network("resnet18", 6, imagenet=str(tmp_path))


@pytest.mark.parametrize("name", ["resnet18.pth", "resnet18-f37072fd.pth", "resnet18.safetensors"])
def test_a_folder_serves_each_backbone_by_its_name(tmp_path: Path, name: str) -> None:
    state = classifier_state("resnet18")
    (tmp_path / "resnet18_notes.pth").write_text("another file")
    (tmp_path / "resnet34.pth").write_text("another backbone")
    if name.endswith(".pth"):
        torch.save(state, tmp_path / name)
    else:
        safetensors.torch.save_file(state, tmp_path / name)
    assert_trunk_is(build_network("resnet18", 6, imagenet=str(tmp_path)), state)


def test_a_folder_without_the_backbone_or_with_two_of_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotHereError, match=r"not exactly one file .* for resnet18; got 'none'"):
        build_network("resnet18", 6, imagenet=str(tmp_path))
    for name in ("resnet18.pth", "resnet18-f37072fd.pth"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"got 'resnet18-f37072fd\.pth, resnet18\.pth'") as error:
        build_network("resnet18", 6, imagenet=str(tmp_path))
    assert type(error.value) is UserError, "no other node would know better"


def test_a_missing_file_is_an_error_and_no_silent_start_from_scratch(tmp_path: Path) -> None:
    with pytest.raises(NotHereError, match=r"absent\.pth: no such file"):
        build_network("resnet18", 6, imagenet=str(tmp_path / "absent.pth"))


def test_weights_of_another_backbone_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(classifier_state("resnet18"), path)
    with pytest.raises(NotHereError, match=r"the weights are of another network; got '.* missing"):
        build_network("resnet34", 6, imagenet=str(path))


def test_damaged_weights_are_a_fault_of_this_copy(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    torch.save(classifier_state("resnet18"), path)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(NotHereError, match="cannot be read as weights"):
        build_network("resnet18", 6, imagenet=str(path))


def test_side_outputs_and_old_names_in_published_files_are_understood(tmp_path: Path) -> None:
    googlenet = classifier_state_with_side_outputs()
    assert any(key.startswith("aux1.") for key in googlenet)
    torch.save(googlenet, tmp_path / "googlenet.pth")
    assert_trunk_is(build_network("googlenet", 6, imagenet=str(tmp_path)), googlenet)

    state = classifier_state("densenet121")
    old = {old_densenet_name(key): value for key, value in state.items()}
    assert old.keys() != state.keys()
    torch.save(old, tmp_path / "densenet121.pth")
    assert_trunk_is(build_network("densenet121", 6, imagenet=str(tmp_path)), state)


def old_densenet_name(key: str) -> str:
    if "denselayer" not in key:
        return key
    return key.replace("norm1", "norm.1").replace("conv2", "conv.2")


def classifier_state_with_side_outputs() -> dict[str, Tensor]:
    net: nn.Module = models.get_model("googlenet", weights=None, init_weights=False)
    return dict(net.state_dict())


def test_download_takes_the_first_published_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchvision looks into its cache first; the file name says which weights it wants."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    state = classifier_state("resnet18")
    torch.save(state, cache / "resnet18-f37072fd.pth")  # IMAGENET1K_V1
    assert_trunk_is(build_network("resnet18", 6, imagenet="download"), state)


def test_download_takes_weights_of_224_px_where_the_first_are_of_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def unreachable(request: urllib.request.Request, *_args: object, **_kwargs: object) -> None:
        asked.append(request.full_url.rpartition("/")[2])
        raise URLError("Network is unreachable")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    for backbone in ("vit_h_14", "swin_v2_t"):  # the second has no others than of 256 px
        with pytest.raises(NotHereError):
            imagenet_state(backbone, "download")
    assert asked == ["vit_h_14_lc_swag-c1eb923e.pth", "swin_v2_t-b137f0e2.pth"]


def test_a_download_without_a_network_is_an_error_and_no_silent_start_from_scratch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_args: object, **_kwargs: object) -> None:
        raise URLError("Network is unreachable")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(UserError, match=r"of resnet18 could not be fetched; got .*unreachable"):
        build_network("resnet18", 6, imagenet="download")


@pytest.mark.parametrize("backbone", sorted({*legal_backbones()} - FROM_TIMM))
def test_published_weights_get_the_normalisation_that_they_expect(backbone: str) -> None:
    wanted = next(iter(models.get_model_weights(backbone))).transforms()
    half = (0.5, 0.5, 0.5)
    given = (half, half) if backbone in AT_PLUS_MINUS_ONE else (IMAGENET_MEAN, IMAGENET_STD)
    assert (tuple(wanted.mean), tuple(wanted.std)) == given


def test_inception_v4_expects_its_input_from_minus_one_to_one() -> None:
    timm = pytest.importorskip("timm", reason="inception_v4 needs timm, an optional extra")
    wanted = timm.get_pretrained_cfg("inception_v4")
    assert (set(wanted.mean), set(wanted.std)) == ({0.5}, {0.5})
    assert "inception_v4" in AT_PLUS_MINUS_ONE


def test_black_is_minus_one_and_white_is_one_where_the_weights_expect_it() -> None:
    trunk = make_trunk("efficientnet_v2_l").module
    assert not [name for name in trunk.state_dict() if name.startswith("input_")]
    seen: list[Tensor] = []
    of_a_trial = copy.deepcopy(trunk).eval()  # as each one begins
    first = of_a_trial.get_submodule("features.0.0")
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = torch.stack([torch.zeros(3, 32, 32), torch.ones(3, 32, 32)])
    with torch.no_grad():
        of_a_trial((pixels - mean) / std)
    torch.testing.assert_close(seen[0], 2 * pixels - 1)
