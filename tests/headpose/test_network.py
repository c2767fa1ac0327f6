"""The network of every architecture: shapes, parameter groups, the frozen stem, seeds."""

import importlib.util

import pytest
import torch
from torch import Tensor

from headpose.networks.backbones import make_trunk
from headpose.networks.names import BACKBONES
from headpose.networks.network import HeadposeNet, build_network
from usererror import UserError

# One of each kind of torchvision classifier beyond the papers': side outputs, a head of several
# layers, layer norm, squeeze-and-excitation.
OTHERS = ("googlenet", "vgg11", "convnext_tiny", "efficientnet_b0", "shufflenet_v2_x0_5")

needs_timm = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None, reason="the optional extra timm is not installed"
)
ALL = [
    pytest.param(name, marks=needs_timm) if name == "inception_v4" else name
    for name in (*BACKBONES, *OTHERS)
]
LIGHT = ("resnet18", "squeezenet1_0", "squeezenet1_1", "mobilenet_v2")


def noise(count: int = 2, px: int = 32) -> Tensor:
    return torch.randn(count, 3, px, px, generator=torch.Generator().manual_seed(0))


def copy_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in state.items()}


@pytest.fixture(params=ALL)
def any_net(request: pytest.FixtureRequest) -> HeadposeNet:
    return build_network(request.param, 12, seed=0)


def test_every_architecture(any_net: HeadposeNet) -> None:
    """Groups are disjoint and complete, the stem is the entrance, logits have their shape."""
    groups = [any_net.stem_parameters(), any_net.body_parameters(), any_net.head_parameters()]
    members = [id(parameter) for group in groups for parameter in group]
    assert len(members) == len(set(members)), "a parameter lies in two groups"
    assert set(members) == {id(parameter) for parameter in any_net.parameters()}
    assert all(groups)
    assert groups[0][0].shape[1] == 3, "the stem does not begin at the image"

    px = 75 if any_net.backbone == "inception_v4" else 32
    with torch.no_grad():
        assert any_net.eval()(noise(1, px)).shape == (1, 3, 12)


@pytest.mark.parametrize("backbone", LIGHT)
def test_every_parameter_gets_a_gradient(backbone: str) -> None:
    net = build_network(backbone, 6, seed=0)
    net(noise(4)).square().sum().backward()
    without = [name for name, parameter in net.named_parameters() if parameter.grad is None]
    assert not without


@pytest.mark.parametrize("backbone", LIGHT)
def test_a_frozen_stem_stays_bit_identical_while_the_rest_learns(backbone: str) -> None:
    net = build_network(backbone, 6, seed=0)
    net(noise()).sum().backward()  # gradients of before the freeze must not be applied after it
    net.set_stem_frozen(True)
    net.train()
    before = copy_of(net.state_dict())
    stem_names = {
        f"trunk.{module}.{key}"
        for module in net._stem
        for key in net.trunk.get_submodule(module).state_dict()
    }
    optimiser = torch.optim.Adam(net.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        net(noise()).square().sum().backward()
        optimiser.step()
        optimiser.zero_grad()
    changed = {
        key for key, value in net.state_dict().items() if not torch.equal(value, before[key])
    }
    assert stem_names
    assert not changed & stem_names
    assert any(key.startswith("heads.") for key in changed)
    assert len(changed) > len(before) / 2


def test_an_unfrozen_stem_learns_again_and_its_statistics_move() -> None:
    net = build_network("resnet18", 6, seed=0)
    net.set_stem_frozen(True)
    net.set_stem_frozen(False)
    before = copy_of(net.state_dict())
    net(noise()).square().sum().backward()
    assert all(parameter.grad is not None for parameter in net.stem_parameters())
    assert not torch.equal(
        net.state_dict()["trunk.bn1.running_mean"], before["trunk.bn1.running_mean"]
    )


def test_freezing_in_evaluation_mode_does_not_switch_to_training() -> None:
    net = build_network("resnet18", 6, seed=0).eval()
    net.set_stem_frozen(True)
    net.set_stem_frozen(False)
    assert not any(module.training for module in net.modules())


def test_a_seed_repeats_the_weights_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = build_network("squeezenet1_1", 6, seed=3).state_dict()
    assert torch.equal(torch.rand(1), expected)
    again = build_network("squeezenet1_1", 6, seed=3).state_dict()  # from another global state
    other = build_network("squeezenet1_1", 6, seed=4).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["trunk.0.weight"], other["trunk.0.weight"])
    assert not torch.equal(first["heads.yaw.1.weight"], other["heads.yaw.1.weight"])


@pytest.mark.parametrize("backbone", LIGHT)
def test_a_network_of_kept_initial_weights_is_as_one_drawn_anew(backbone: str) -> None:
    """What is kept of a backbone serves other heads, and nobody can change it."""
    for n_bins in (6, 9, 6):
        torch.manual_seed(11)
        expected = HeadposeNet(backbone, n_bins, make_trunk(backbone)).state_dict()
        net = build_network(backbone, n_bins, seed=11)
        found = net.state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in found.items())
        assert found.keys() == expected.keys()
        net.set_stem_frozen(True)
        net(noise()).sum().backward()
        with torch.no_grad():
            for value in found.values():
                value.fill_(7)
    later = build_network(backbone, 6, seed=11)
    assert all(p.requires_grad and p.grad is None for p in later.parameters())
    assert all(module.training for module in later.modules())


def test_heads_answer_independently_in_the_order_yaw_pitch_roll() -> None:
    net = build_network("resnet18", 4, seed=0).eval()
    with torch.no_grad():
        before = net(noise())
        net.heads["pitch"].bias.add_(1)  # type: ignore[operator,union-attr]
        after = net(noise())
    torch.testing.assert_close(after[:, 1], before[:, 1] + 1)
    assert torch.equal(after[:, [0, 2]], before[:, [0, 2]])


def test_an_image_too_small_for_the_backbone_is_a_users_error() -> None:
    net = build_network("squeezenet1_0", 6, seed=0)
    net.require_image_px(32)
    with pytest.raises(UserError, match=r"image_px: squeezenet1_0 cannot take images .* got 16"):
        net.require_image_px(16)
    assert net.training
    net.require_image_px(32)
    with pytest.raises(UserError):
        build_network("squeezenet1_0", 9, seed=1).require_image_px(16)


def test_too_few_bins_are_refused() -> None:
    with pytest.raises(UserError, match="n_bins: too few bins; got 1"):
        build_network("resnet18", 1)
