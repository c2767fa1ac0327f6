"""The released SqueezeNet on genuine AFLW2000 pictures gives the published network's degrees."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from headpose.bins import Binning
from headpose.data.crops import face_box
from headpose.data.readers import Sample, scan
from headpose.networks.network import HeadposeNet
from headpose.networks.released import load_snapshot

# The published test protocol, so that nothing of ours but box and network takes part.
VIEW = transforms.Compose(
    [
        transforms.Resize(224),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    ]
)


@pytest.fixture(scope="module")
def snapshot(realdata: Path) -> tuple[HeadposeNet, Binning]:
    return load_snapshot(realdata / "snapshots" / "squeezenet_1_0.pkl")


def test_every_key_of_the_released_file_is_used(
    realdata: Path, snapshot: tuple[HeadposeNet, Binning]
) -> None:
    net, binning = snapshot
    path = realdata / "snapshots" / "squeezenet_1_0.pkl"
    released = torch.load(path, map_location="cpu", weights_only=True)
    assert (net.backbone, binning) == ("squeezenet1_0", Binning(3.0, "hopenet"))
    ours = net.state_dict()
    assert len(ours) == len(released)
    for key, value in released.items():
        own_key = key.replace("features.", "trunk.").replace("classifier_", "heads.")
        assert torch.equal(ours[own_key], value), key


def test_the_reference_predictions_are_reproduced(
    realdata: Path, snapshot: tuple[HeadposeNet, Binning]
) -> None:
    net, binning = snapshot
    text = (realdata / "squeezenet_1_0_reference_predictions.json").read_text()
    (reference,) = json.loads(text).values()
    samples = {sample.name: sample for sample in scan("aflw2000", realdata / "AFLW2000").samples}
    assert len(reference) == 8
    for file, expected in reference.items():
        sample = samples[Path(file).stem]
        np.testing.assert_allclose(sample.angles_deg, expected["gt"], atol=1e-3)
        with torch.no_grad():
            predicted_deg = binning.expectation(net(view_of(sample)))[0].numpy()
        np.testing.assert_allclose(
            predicted_deg, expected["pred_yaw_pitch_roll"], atol=0.05, err_msg=file
        )


def view_of(sample: Sample) -> torch.Tensor:
    """(1, 3, 224, 224) ImageNet-normalised view of the original crop."""
    box = face_box("aflw2000", sample.landmarks_px, looseness=0.2, policy="original")
    with Image.open(sample.image_path) as image:
        view: torch.Tensor = VIEW(image.convert("RGB").crop(box))
    return view[None]
