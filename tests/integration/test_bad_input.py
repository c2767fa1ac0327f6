"""A user's mistakes, as a user sees them: exit code 2, one line, no traceback, nothing lost."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster import jobs
from cluster.settings import Settings
from tuning.spec import load_spec
from tuning.storage import Storage
from usererror import UserError

pytestmark = pytest.mark.servers

SearchFile = Callable[..., Path]


def told(done) -> str:  # type: ignore[no-untyped-def]
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_a_misspelt_field(hopetune_here: Callable, search_file: SearchFile) -> None:
    line = told(hopetune_here("submit", str(search_file(budgett="{}"))))
    assert "budgett: unknown field; did you mean 'budget'?" in line


def test_a_model_name_that_mlflow_would_refuse_at_the_end(
    hopetune_here: Callable, search_file: SearchFile
) -> None:
    line = told(hopetune_here("submit", str(search_file(model_name="team/headpose"))))
    assert "model_name: not legal; got 'team/headpose'" in line


@pytest.mark.parametrize("name", ["anna's", "two words", "latest", "exp.r2", "x" * 191])
def test_a_name_that_runs_or_jobs_cannot_bear(
    hopetune_here: Callable, search_file: SearchFile, name: str
) -> None:
    for command in ("run", "submit"):
        line = told(hopetune_here(command, str(search_file()), "--name", name))
        assert "--name: not legal" in line


def test_an_impossible_range(hopetune_here: Callable, search_file: SearchFile) -> None:
    path = search_file(parameters="{alpha: {low: 2, high: 1}}")
    assert "parameters.alpha: `low <= high` must hold" in told(hopetune_here("submit", str(path)))


def test_an_unknown_backbone(hopetune_here: Callable, search_file: SearchFile) -> None:
    line = told(hopetune_here("submit", str(search_file(fixed="{backbone: resnet19}"))))
    assert "fixed.backbone: unknown backbone; got 'resnet19'" in line


def test_a_missing_data_set(hopetune_here: Callable, search_file: SearchFile) -> None:
    path = search_file(data="{train: s3://hopetune/data/absent}")
    line = told(hopetune_here("run", str(path)))
    assert "s3://hopetune/data/absent: no prepared data set" in line
    assert "hopetune data prepare" in line


def test_a_data_set_that_is_too_coarse(hopetune_here: Callable, search_file: SearchFile) -> None:
    path = search_file(fixed="{backbone: squeezenet1_1, image_px: 224}")
    line = told(hopetune_here("run", str(path), "--name", "small-coarse"))
    assert "the prepared pictures are too coarse; got 'a view of 32 px" in line
    assert "no such search" in told(hopetune_here("show", "small-coarse"))


def test_imagenet_weights_that_s3_lacks(hopetune_here: Callable, search_file: SearchFile) -> None:
    path = search_file(
        fixed="{image_px: 32, batch_size: 16, imagenet: s3://hopetune/no-weights}",
        parameters="{backbone: {choices: [squeezenet1_1, resnet18]}}",
    )
    line = told(hopetune_here("run", str(path), "--name", "small-no-weights"))
    assert "s3://hopetune/no-weights: not exactly one file of ImageNet weights for squeez" in line
    assert "no such search" in told(hopetune_here("show", "small-no-weights"))


def test_a_configuration_of_which_every_trial_fails(
    hopetune: Callable, search_file: SearchFile
) -> None:
    path = search_file(
        fixed="{backbone: inception_v3, image_px: 32, batch_size: 16}",
        budget="{trials: 2, epochs: 1}",
    )
    line = told(hopetune("run", str(path), "--name", "small-all-fail"))
    assert "small-all-fail: every trial failed; got " in line
    assert "2 of 2, the last one: image_px: " in line
    assert "inception_v3 cannot take images of this size" in line


def test_a_missing_data_set_in_a_submitted_search(
    hopetune: Callable, search_file: SearchFile
) -> None:
    path = search_file(data="{train: s3://hopetune/data/absent}")
    done = hopetune("submit", str(path), "--follow")
    assert "its driver did not end well" in told(done)
    assert "s3://hopetune/data/absent: no prepared data set" in done.stdout


def test_wrong_s3_keys(hopetune_here: Callable, search_file: SearchFile, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("[default]\naws_access_key_id = nobody\naws_secret_access_key = nothing\n")
    done = hopetune_here("run", str(search_file()), HOPETUNE_S3_CREDENTIALS_FILE=str(keys))
    assert "the S3 server refuses these keys" in told(done)


def test_an_s3_server_that_is_not_there(hopetune_here: Callable, search_file: SearchFile) -> None:
    done = hopetune_here("run", str(search_file()), HOPETUNE_S3_ENDPOINT="http://127.0.0.1:1")
    assert "the S3 server cannot be used" in told(done)


def test_a_bucket_that_is_not_there(hopetune_here: Callable, search_file: SearchFile) -> None:
    done = hopetune_here("run", str(search_file()), HOPETUNE_S3_BUCKET="absent")
    assert "no such bucket; got 'absent'" in told(done)


def test_more_gpus_than_there_are(hopetune: Callable, search_file: SearchFile) -> None:
    done = hopetune("run", str(search_file(resources="{gpus_per_trial: 64}")))
    assert "resources.gpus_per_trial: more than there are; got 64.0" in told(done)


def test_no_cluster_at_the_address(hopetune_here: Callable, search_file: SearchFile) -> None:
    done = hopetune_here("submit", str(search_file()), "--address", "http://127.0.0.1:1")
    assert "http://127.0.0.1:1" in told(done)


def test_a_name_that_is_taken(
    hopetune_here: Callable, search_file: SearchFile, servers: Settings, storage: Storage
) -> None:
    storage.create("small-taken", load_spec(search_file()), "fingerprint")
    jobs.submit(servers, submission_id="small-taken", entrypoint="true")
    until = time.monotonic() + 60
    while not jobs.get(servers, "small-taken").finished and time.monotonic() < until:
        time.sleep(0.2)
    line = told(hopetune_here("submit", str(search_file()), "--name", "small-taken"))
    assert "small-taken: a search of this name was submitted before" in line
    assert "got 'job small-taken, SUCCEEDED'" in line
    assert "hopetune resume small-taken" in line


def test_a_name_that_another_living_search_has(
    hopetune_here: Callable, search_file: SearchFile, servers: Settings
) -> None:
    """Only the same file once more is taken for a repetition, whose first answer got lost."""
    file = search_file()
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    jobs.submit(
        servers,
        submission_id="small-living",
        entrypoint="sleep 300",
        metadata={"search_file_sha256": sha256},
    )
    again = hopetune_here("submit", str(file), "--name", "small-living")
    assert (again.returncode, "small-living is submitted" in again.stdout) == (0, True)
    other = search_file(budget="{trials: 7, epochs: 3}")
    line = told(hopetune_here("submit", str(other), "--name", "small-living"))
    assert "small-living: a search of this name was submitted before" in line
    with pytest.raises(UserError, match="another job has this name"):  # of two at once
        jobs.submit(servers, submission_id="small-living", entrypoint="true")
    jobs.stop(servers, "small-living")


def test_an_unknown_search(hopetune_here: Callable) -> None:
    assert "absent: no such search" in told(hopetune_here("show", "absent"))


def test_nothing_set_up(hopetune_here: Callable, tmp_path: Path) -> None:
    line = told(hopetune_here("ls", HOPETUNE_STATE_DIR=str(tmp_path / "empty")))
    assert "settings.study_url: not set" in line
    assert "hopetune up" in line


def test_pictures_that_are_none(
    hopetune_here: Callable, servers: Settings, faces: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    assert "not a picture that can be read" in told(hopetune_here("predict", str(text)))
    whole = next((faces / "AFLW2000").glob("*.jpg")).read_bytes()
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(whole[: len(whole) // 2])
    assert "not a picture that can be read" in told(hopetune_here("predict", str(cut)))
    assert "no such picture" in told(hopetune_here("predict", str(tmp_path / "absent.jpg")))


def test_an_empty_source(hopetune_here: Callable, tmp_path: Path) -> None:
    absent = tmp_path / "not there"
    done = hopetune_here("data", "prepare", "300w-lp", str(absent), "--to", str(tmp_path / "to"))
    assert str(absent) in told(done)
