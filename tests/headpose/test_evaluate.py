"""Errors by the AFLW2000 protocol, baselines, ranges, and predictions for a set."""

from pathlib import Path

import numpy as np
import pytest
import torch
from faces import write_300w_lp
from torch import Tensor, nn

from headpose.bins import Binning
from headpose.data.manifest import PrepareSettings
from headpose.data.prepared import PreparedSet, prepare
from headpose.evaluate import constant_baseline, errors_by_range, pose_errors, predict_set
from headpose.normalisation import IMAGENET_MEAN, IMAGENET_STD
from usererror import UserError

TRUE = torch.tensor([[10.0, 0.0, 0.0], [-40.0, 20.0, 5.0], [90.0, -10.0, 0.0]])
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    root = tmp_path_factory.mktemp("faces")
    write_300w_lp(root / "source", faces=3)
    prepare("300w-lp", root / "source", root / "set", PrepareSettings(stored_px=40))
    return PreparedSet.open(root / "set")


class Brightness(nn.Module):
    """Logits whose yaw grows with the green of the view's centre; has dropout to be turned off."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.9)
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        green = images[:, 1, 16, 16] * IMAGENET_STD[1] + IMAGENET_MEAN[1]
        logits = torch.zeros(len(images), 3, 66)
        logits[:, 0, 65] = self.dropout(20 * green)
        return logits


def test_errors_are_means_of_absolute_differences_without_wrapping() -> None:
    predicted = TRUE + torch.tensor([[1.0, -2.0, 3.0], [-3.0, 4.0, -5.0], [-185.0, 0.0, 1.0]])
    errors = pose_errors(predicted, TRUE.numpy())
    assert errors.yaw_mae == pytest.approx((1 + 3 + 185) / 3)  # and not 360 − 185
    assert errors.pitch_mae == pytest.approx(2.0)
    assert errors.roll_mae == pytest.approx(3.0)
    assert errors.mae == pytest.approx((63 + 2 + 3) / 3)
    assert errors.count == 3


def test_the_geodesic_error_is_the_angle_of_the_rotation_between() -> None:
    errors = pose_errors(torch.tensor([[20.0, 0.0, 0.0]]), torch.tensor([[-5.0, 0.0, 0.0]]))
    assert errors.geodesic == pytest.approx(25.0)
    assert errors.as_dict("val_") == {
        "val_yaw_mae": pytest.approx(25.0),
        "val_pitch_mae": 0.0,
        "val_roll_mae": 0.0,
        "val_mae": pytest.approx(25 / 3),
        "val_geodesic": pytest.approx(25.0),
    }


def test_a_prediction_that_is_no_number_makes_the_error_no_number() -> None:
    predicted = TRUE.clone()
    predicted[1, 2] = torch.nan
    errors = pose_errors(predicted, TRUE)
    assert np.isnan([errors.roll_mae, errors.mae, errors.geodesic]).all()
    assert errors.yaw_mae == 0


def test_wrong_shapes_and_empty_sets_are_refused() -> None:
    with pytest.raises(ValueError, match="predictions"):
        pose_errors(TRUE[:2], TRUE)
    with pytest.raises(ValueError, match="not \\(N, 3\\)"):
        pose_errors(TRUE[:, :2], TRUE[:, :2])
    with pytest.raises(UserError, match="no image"):
        pose_errors(TRUE[:0], TRUE[:0])


def test_the_baseline_answers_the_training_mean() -> None:
    train = np.array([[0.0, 10.0, 0.0], [20.0, 10.0, -4.0]], np.float32)
    baseline = constant_baseline(train, np.array([[13.0, 5.0, -2.0], [7.0, 15.0, 0.0]]))
    assert (baseline.yaw_mae, baseline.pitch_mae, baseline.roll_mae) == (3.0, 5.0, 1.0)
    assert baseline.mae == 3.0


def test_ranges_go_by_the_largest_angle_and_cover_each_image_once() -> None:
    poses = torch.tensor([[0.0, 0, 0], [30, 0, 0], [0, -30.5, 0], [0, 0, 60], [99, 0, 0]])
    rows = errors_by_range(poses + 1, poses)
    assert [(row.above_deg, row.up_to_deg) for row in rows] == [(0, 30), (30, 60), (60, 99)]
    assert [row.errors.count for row in rows if row.errors] == [2, 2, 1]
    assert errors_by_range(poses[:2], poses[:2])[2].errors is None


def test_predictions_come_from_central_views_in_evaluation_mode(faces: PreparedSet) -> None:
    net = Brightness().train()
    index = np.array([4, 0, 2])
    predicted = predict_set(net, Binning(), faces, index, 32, CPU)
    assert net.training  # as it was before
    assert predicted.shape == (3, 3)
    centre = faces.images_u8[index][:, 4:36, 4:36].astype(np.float32) / 255
    seen = net.seen[0].permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(seen, (centre - IMAGENET_MEAN) / IMAGENET_STD, atol=2e-3)
    all_of_them = predict_set(net, Binning(), faces, None, 32, CPU)
    assert torch.equal(all_of_them[index], predicted)


def test_batches_make_no_difference(faces: PreparedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = predict_set(Brightness(), Binning(), faces, None, 32, CPU)
    monkeypatch.setattr("headpose.evaluate._BATCH_SIZE", 4)
    assert torch.equal(predict_set(Brightness(), Binning(), faces, None, 32, CPU), whole)


def test_a_set_too_coarse_for_the_network_is_refused(faces: PreparedSet) -> None:
    with pytest.raises(UserError, match="too coarse"):
        predict_set(Brightness(), Binning(), faces, None, 64, CPU)


def test_the_released_network_keeps_its_error_on_prepared_genuine_files(
    realdata: Path, tmp_path: Path
) -> None:
    from headpose.networks.released import load_snapshot

    prepare("aflw2000", realdata / "AFLW2000", tmp_path / "set", PrepareSettings())
    genuine = PreparedSet.open(tmp_path / "set")
    net, binning = load_snapshot(realdata / "snapshots" / "squeezenet_1_0.pkl")
    predicted = predict_set(net, binning, genuine, None, 224, CPU)
    published = _published_predictions(realdata)
    by_name = torch.tensor([published[f"{name}.mat"] for name in genuine.names])
    # The same view up to a part of a pixel, on pictures that were resized once instead of twice.
    assert (predicted - by_name).abs().mean() < 1.0
    errors = pose_errors(predicted, genuine.angles_deg)
    assert errors.mae == pytest.approx(pose_errors(by_name, genuine.angles_deg).mae, abs=0.5)


def _published_predictions(realdata: Path) -> dict[str, list[float]]:
    import json

    text = (realdata / "squeezenet_1_0_reference_predictions.json").read_text()
    (rows,) = json.loads(text).values()
    return {name: row["pred_yaw_pitch_roll"] for name, row in rows.items()}
