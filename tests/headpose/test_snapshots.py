"""Our weights files, and released snapshots of every family made up from our own networks."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from headpose.bins import Binning
from headpose.networks.names import BACKBONES
from headpose.networks.network import HeadposeNet, build_network
from headpose.networks.released import load_snapshot
from headpose.networks.snapshots import (
    LoadedNetwork,
    load_weights,
    read_weights,
    weights_from_bytes,
    weights_to_bytes,
)
from usererror import UserError

RELEASED = tuple(name for name in BACKBONES if name != "inception_v4")


def noise() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def logits_of(net: HeadposeNet) -> Tensor:
    with torch.no_grad():
        return net.eval()(noise())  # type: ignore[no-any-return]


@pytest.mark.parametrize("backbone", ["resnet18", "squeezenet1_0", "mobilenet_v2"])
@pytest.mark.parametrize("binning", [Binning(3.0, "hopenet"), Binning(7.0), Binning(0.6)])
def test_save_and_load_give_the_same_network(
    tmp_path: Path, backbone: str, binning: Binning
) -> None:
    net = build_network(backbone, binning.count, seed=2)
    net.train()(noise())  # moves the running statistics, which must survive too
    path = tmp_path / "best of all.safetensors"
    path.write_bytes(weights_to_bytes(LoadedNetwork(net, binning, 64)))
    loaded = load_weights(path)
    assert (loaded.binning, loaded.image_px, loaded.net.backbone) == (binning, 64, backbone)
    assert not loaded.net.training
    state = net.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in loaded.net.state_dict().items())
    assert torch.equal(logits_of(loaded.net), logits_of(net))


def test_a_network_in_channels_last_is_saved_alike() -> None:
    net = build_network("squeezenet1_1", 66, seed=2)
    plain = weights_to_bytes(LoadedNetwork(net, Binning(), 64))
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert weights_to_bytes(LoadedNetwork(net, Binning(), 64)) == plain
    # Another memory format sums in another order.
    torch.testing.assert_close(logits_of(weights_from_bytes(plain, "w").net), logits_of(net))


def test_loading_leaves_the_global_generator_alone() -> None:
    content = weights_to_bytes(
        LoadedNetwork(build_network("squeezenet1_1", 66, seed=2), Binning(), 64)
    )
    before = torch.random.get_rng_state()
    weights_from_bytes(content, "bytes")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_binning_of_another_network_is_refused() -> None:
    net = build_network("squeezenet1_1", 66, seed=2)
    with pytest.raises(ValueError, match="a binning of 33 for a network of 66 bins"):
        LoadedNetwork(net, Binning(6.0), 64)


def test_a_missing_weights_file_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"w\.safetensors: the weights cannot be read"):
        load_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize("kept", [0, 4, 8, 100, -1])
def test_truncated_weights_are_a_users_error(kept: int) -> None:
    net = build_network("squeezenet1_1", 66, seed=2)
    content = weights_to_bytes(LoadedNetwork(net, Binning(), 64))
    with pytest.raises(UserError, match="w: damaged, or not weights written by this program"):
        weights_from_bytes(content[:kept], "w")


def test_a_stranger_in_safetensors_is_refused() -> None:
    content = safetensors.torch.save({"weight": torch.zeros(2)})
    with pytest.raises(UserError, match="not weights written by this program; got 'no format"):
        weights_from_bytes(content, "w")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "resnet19"}, "^w: unknown backbone"),
        ({"backbone": "resnet18"}, "of another network"),
        ({"bin_width_deg": 6.0}, "of another shape"),
        ({"bin_width_deg": "wide"}, "damaged metadata"),
        ({"image_px": None}, "damaged metadata"),
        ({"centres": "elsewhere"}, "^w: damaged metadata.*legal: unbiased"),
    ],
)
def test_metadata_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    net = build_network("squeezenet1_1", 66, seed=2)
    good = {
        "format": "hopetune headpose weights, version 1",
        "backbone": "squeezenet1_1",
        "bin_width_deg": 3.0,
        "centres": "unbiased",
        "image_px": 64,
    }

    def written(description: object) -> bytes:
        content: bytes = safetensors.torch.save(
            net.state_dict(), {"hopetune": json.dumps(description)}
        )
        return content

    weights_from_bytes(written(good), "w")
    with pytest.raises(UserError, match=message):
        weights_from_bytes(written({**good, **change}), "w")


def released_state(net: HeadposeNet) -> dict[str, Tensor]:
    """The keys under which the original projects published such a network."""
    family = net.backbone.split("_")[0].rstrip("0123456789")
    state = {}
    for key, value in net.state_dict().items():
        if family == "resnet":
            key = key.removeprefix("trunk.")  # noqa: PLW2901
            name = key.replace("heads.", "fc_") if key.startswith("heads.") else key
        elif family == "squeezenet":
            name = key.replace("trunk.", "features.").replace("heads.", "classifier_")
        else:
            _, angle, *rest = key.split(".")
            name = (
                f"classifier_{angle}.1.{rest[0]}"
                if key.startswith("heads.")
                else key.removeprefix("trunk.")
            )
        state[name] = value
    if family == "resnet":
        width = net.heads["yaw"].in_features
        state["fc_finetune.weight"] = torch.zeros(3, width + 3)  # type: ignore[operator]
        state["fc_finetune.bias"] = torch.zeros(3)
    return state


@pytest.mark.parametrize("backbone", RELEASED)
def test_every_released_family_is_recognised(tmp_path: Path, backbone: str) -> None:
    net = build_network(backbone, 66, seed=3)
    path = tmp_path / "snapshot.pkl"
    torch.save(released_state(net), path)
    loaded, binning = load_snapshot(path)
    assert (loaded.backbone, binning) == (backbone, Binning(3.0, "hopenet"))
    assert not loaded.training
    assert torch.equal(logits_of(loaded), logits_of(net))


@pytest.mark.parametrize("name", ["hopenet.pkl", "hopeless.pth", "mine.pt"])
def test_a_released_snapshot_is_used_as_weights_are(tmp_path: Path, name: str) -> None:
    net = build_network("squeezenet1_1", 66, seed=3)
    torch.save(released_state(net), tmp_path / name)
    loaded = load_weights(tmp_path / name)
    assert (loaded.image_px, loaded.binning) == (224, Binning(3.0, "hopenet"))
    assert torch.equal(logits_of(loaded.net), logits_of(net))
    (tmp_path / name).write_bytes(b"no pickle")
    with pytest.raises(UserError, match=f"{name}: cannot be read as weights"):
        load_weights(tmp_path / name)


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2"])
def test_snapshots_from_before_the_counters_of_batch_normalisation_load(
    tmp_path: Path, backbone: str
) -> None:
    net = build_network(backbone, 66, seed=3)
    whole = released_state(net)
    old = {k: v for k, v in whole.items() if not k.endswith(".num_batches_tracked")}
    assert len(old) < len(whole)
    torch.save(old, tmp_path / "snapshot.pkl")
    assert torch.equal(logits_of(load_snapshot(tmp_path / "snapshot.pkl")[0]), logits_of(net))


def test_in_our_own_weights_the_counters_may_not_be_missing() -> None:
    net = build_network("resnet18", 66, seed=2)
    del net.trunk.bn1.num_batches_tracked  # type: ignore[union-attr]
    content = weights_to_bytes(LoadedNetwork(net, Binning(), 64))
    with pytest.raises(UserError, match=r"1 missing \(trunk\.bn1\.num_batches_tracked\)"):
        weights_from_bytes(content, "w")


def test_the_number_of_keys_is_that_of_the_released_files() -> None:
    assert len(released_state(build_network("resnet50", 66, seed=0))) == 326
    assert len(released_state(build_network("mobilenet_v2", 66, seed=0))) == 318


def test_other_bin_widths_are_recognised(tmp_path: Path) -> None:
    torch.save(released_state(build_network("squeezenet1_1", 33, seed=3)), tmp_path / "s.pkl")
    assert load_snapshot(tmp_path / "s.pkl")[1] == Binning(6.0, "hopenet")


@pytest.mark.parametrize(
    ("dropped", "added", "message"),
    [
        ("fc_roll.bias", None, r"1 missing \(heads\.roll\.bias\)"),
        (None, "layer1.0.conv9.weight", r"1 left over \(trunk\.layer1\.0\.conv9\.weight\)"),
        ("layer4.1.bn2.running_var", None, r"1 missing \(trunk\.layer4\.1\.bn2\.running_var\)"),
        ("fc_yaw.weight", None, "a snapshot of no known family; got 'keys such as"),
        (None, "layer2.7.conv1.weight", "a ResNet of .* plain blocks"),
    ],
)
def test_a_snapshot_that_does_not_fit_key_by_key_is_refused(
    tmp_path: Path, dropped: str | None, added: str | None, message: str
) -> None:
    state = released_state(build_network("resnet18", 66, seed=3))
    if dropped:
        del state[dropped]
    if added:
        state[added] = torch.zeros(1)
    torch.save(state, tmp_path / "snapshot.pkl")
    with pytest.raises(UserError, match=message):
        load_snapshot(tmp_path / "snapshot.pkl")


def test_a_plain_classifier_is_no_snapshot(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "resnet.pth")
    with pytest.raises(UserError, match=r"no known family; got 'keys such as fc\.weight'"):
        load_snapshot(tmp_path / "resnet.pth")


def test_weights_that_were_trained_on_other_inputs_are_refused() -> None:
    net = build_network("squeezenet1_1", Binning().count, seed=2)
    before = weights_to_bytes(LoadedNetwork(net, Binning(), 64)).replace(
        b"squeezenet1_1", b"efficientnet_v2_l"
    )
    header_bytes = int.from_bytes(before[:8], "little") + len("efficientnet_v2_l") - 13
    with pytest.raises(UserError, match="efficientnet_v2_l trained by an earlier version"):
        read_weights(header_bytes.to_bytes(8, "little") + before[8:], "old")
    net.backbone = "efficientnet_v2_l"
    now = read_weights(weights_to_bytes(LoadedNetwork(net, Binning(), 64)), "new")
    assert now.backbone == "efficientnet_v2_l"
