"""Names of backbones: legal, unknown, and not installed."""

import importlib.util
import re

import pytest

from headpose.networks.backbones import make_trunk
from headpose.networks.names import BACKBONES, check_backbone, legal_backbones
from usererror import UserError


def test_the_architectures_of_the_papers_are_legal_and_others_of_torchvision_too() -> None:
    assert set(BACKBONES) <= set(legal_backbones())
    assert {"efficientnet_b0", "convnext_tiny", "vgg11"} <= set(legal_backbones())


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("resnet19", "'resnet1"), ("squeezenet_1_0", "'squeezenet1_0'"), ("MobileNetV2", "mobilenet")],
)
def test_an_unknown_backbone_names_close_ones(name: str, suggestion: str) -> None:
    with pytest.raises(
        UserError, match=f"unknown backbone; got '{name}'; did you mean .*"
    ) as error:
        make_trunk(name)
    assert suggestion in str(error.value)


def test_a_name_like_nothing_known_lists_the_legal_ones_and_blames_the_field() -> None:
    with pytest.raises(UserError, match=r"^TrainConfig\.backbone: unknown backbone") as error:
        check_backbone("zzz", where="TrainConfig.backbone")
    assert "did you mean" not in str(error.value)
    assert "resnet18, resnet34" in str(error.value)


def test_detectors_and_segmenters_are_no_backbones() -> None:
    with pytest.raises(UserError, match="unknown backbone"):
        check_backbone("fasterrcnn_resnet50_fpn")


def test_inception_v4_without_timm_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UserError, match=re.escape("pip install 'hopetune[timm]'")):
        make_trunk("inception_v4")
    check_backbone("resnet18")
