"""The one door to MLflow: runs of searches and trials, and the registry of models."""

import importlib.metadata
import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import mlflow
import mlflow.environment_variables as mlflow_environment
import numpy as np
import requests
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from cluster.settings import Settings
from headpose.networks.names import FROM_TIMM
from tuning.manifest import DamagedCheckpointError, weights_place
from tuning.objects import S3_ERRORS, AbsentObjectError, Objects, Place, parse_place
from tuning.places import checkpoints
from tuning.projection import CREATED_TAG, END_TAGS, SEARCH_TAG, TRIAL_TAG, UNENDED, RunState
from usererror import UserError

log = logging.getLogger(__name__)

EXPERIMENT = "hopetune"
ARTIFACT_FOLDER = "checkpoint"
WEIGHTS = "weights.safetensors"
"""The name of a network among artifacts."""
CHAMPION = "champion"
CHECKPOINT_TAG = "checkpoint"
"""Of a model version: the key of the checkpoint that it was made from."""
REPLACES_TAG = "replaces_version"
"""Of a model version: the champion before it."""
PARENT_TAG = "mlflow.parentRunId"
COPIED_TAG = "hopetune.checkpoint"
"""Of a run: the key of the checkpoint whose weights lie among its artifacts."""

REQUEST_TIMEOUT_S = 20  # untuned
TRANSFER_TIMEOUT_S = 120
"""MLflow's own."""

# Limits of one request to the tracking server.
METRICS_A_BATCH, PARAMS_A_BATCH, TAGS_A_BATCH = 1000, 100, 100


# MLflow takes these from the environment only, at each request.
_TIMEOUT = mlflow_environment.MLFLOW_HTTP_REQUEST_TIMEOUT.name
_RETRIES = mlflow_environment.MLFLOW_HTTP_REQUEST_MAX_RETRIES.name


def connect(settings: Settings) -> MlflowClient:
    """A client of the tracking server of ``settings``.

    Raises:
        UserError: no server is set.
    """
    uri = settings.require("mlflow_uri")
    # One retry: its 7 would take minutes to say that it is away, and ours come with back-off.
    os.environ.setdefault(_RETRIES, "1")
    # Its own 120 s are for large uploads; a driver's last words must not hang that long.
    os.environ.setdefault(_TIMEOUT, str(REQUEST_TIMEOUT_S))
    mlflow_environment.MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.set(True)
    mlflow_environment.MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    if settings.mlflow_username:
        os.environ["MLFLOW_TRACKING_USERNAME"] = settings.mlflow_username
        os.environ["MLFLOW_TRACKING_PASSWORD"] = settings.require("mlflow_password")
    mlflow.set_tracking_uri(uri)
    return MlflowClient(uri)


def _show_the_way_to_artifacts(settings: Settings) -> None:
    """For a server that does not pass artifacts on: MLflow reaches for them in S3 itself, and takes
    address and keys from the environment only. What a person has set there wins."""
    ours = settings.client_environment()
    for name in ("MLFLOW_S3_ENDPOINT_URL", "AWS_SHARED_CREDENTIALS_FILE", "AWS_DEFAULT_REGION"):
        if name in ours:
            os.environ.setdefault(name, ours[name])


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _whole_models() -> AbstractContextManager[None]:
    """MLflow's own time for a request, unless a person has said another one: a server that passes
    artifacts on answers when it has the whole of one."""
    is_ours = os.environ.get(_TIMEOUT) == str(REQUEST_TIMEOUT_S)
    return _environment(_TIMEOUT, str(TRANSFER_TIMEOUT_S)) if is_ours else nullcontext()


@contextmanager
def reachable(uri: str) -> Iterator[None]:
    """Turns MLflow's own errors into a :class:`UserError` with the server's address."""
    try:
        yield
    except (MlflowException, requests.RequestException) as error:
        remedy = "check that the server is up (`hopetune status`)"
        what = "the MLflow server cannot be used"
        raise UserError(uri, what, got=_first_line(error), remedy=remedy) from error
    except S3_ERRORS as error:
        what = "the S3 server where it has its artifacts cannot be used"
        remedy = "check settings.s3_endpoint and settings.s3_credentials_file"
        raise UserError(uri, what, got=_first_line(error), remedy=remedy) from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


class MlflowRuns:
    """Brings runs to the state that the study gives; writing twice changes nothing."""

    def __init__(self, settings: Settings, objects: Objects) -> None:
        self._uri = settings.require("mlflow_uri")
        self._client = connect(settings)
        self._settings = settings
        self._objects = objects
        self._checkpoints = checkpoints(settings)
        self._artifacts = settings.mlflow_artifact_root
        self._runs: dict[int | None, Run] = {}
        self._done: dict[int | None, RunState] = {}

    def bring(self, search: str, states: list[RunState]) -> None:
        """Makes the runs of a search look like ``states``, of which the first is the parent's.

        The parent is there before its children, and ends after them: a search that shows as
        finished is whole.

        Raises:
            UserError: the server cannot be reached; what was written stays written.
        """
        try:
            with reachable(self._uri):
                uncopied = self._bring_all(search, states)
        except UserError:
            # Whatever happened there, the next try looks at what it finds.
            self._runs, self._done = {}, {}
            raise
        if uncopied:
            raise uncopied

    def _bring_all(self, search: str, states: list[RunState]) -> UserError | None:
        """Returns why a checkpoint is not among its run's artifacts; no other run waits for it."""
        uncopied: UserError | None = None
        parent, *children = states
        # A run that a slow server was given up on may be there since the first look: at its end a
        # search is looked at once more.
        ends = parent.status not in UNENDED and self._done.get(None) != parent
        if ends or not self._runs:
            self._look(search, parent.started_ms)
            self._reap({state.trial for state in states})
        if None not in self._runs:
            self._runs[None] = self._create(parent)
        for state in (*children, parent):
            if self._done.get(state.trial) != state:
                self._bring_run(state)
                try:
                    self._copy_checkpoint(state)
                except UserError as error:
                    uncopied = error
                else:
                    self._done[state.trial] = state
        return uncopied

    def _look(self, search: str, created_ms: int) -> None:
        """Takes the runs as they are; of twins the elder stays."""
        before, self._runs = self._runs, {}
        for trial, (elder, *younger) in self._found(search, created_ms).items():
            self._runs[trial] = elder
            for run in younger:
                log.warning("trial %s has another run, %s: deleted", trial, run.info.run_id)
                self._client.delete_run(run.info.run_id)
        same = {t for t, run in self._runs.items() if t in before and _id(before[t]) == _id(run)}
        if None not in same:
            same = set()  # children name their parent
        self._done = {trial: state for trial, state in self._done.items() if trial in same}

    def _reap(self, known: set[int | None]) -> None:
        """Ends runs of trials that the study does not know."""
        for trial, run in list(self._runs.items()):
            if trial not in known and run.info.status in UNENDED:
                log.warning("run %s of no trial is ended", run.info.run_id)
                self._client.set_terminated(run.info.run_id, "KILLED")
                self._runs[trial] = self._client.get_run(run.info.run_id)

    def parent_id(self, search: str, created_ms: int) -> str | None:
        """The run of the search itself; none where there is none yet."""
        with reachable(self._uri):
            parents = self._found(search, created_ms).get(None)
        return _id(parents[0]) if parents else None

    def log_files(self, search: str, created_ms: int, files: Sequence[Path], folder: str) -> None:
        """Puts files among the artifacts of the search's own run, below ``folder``.

        Raises:
            UserError: the server cannot be reached, or the search has no run there yet.
        """
        _show_the_way_to_artifacts(self._settings)
        run_id = self.parent_id(search, created_ms)
        if run_id is None:
            remedy = f"`hopetune sync {search}`"
            raise UserError(search, "has no run in MLflow yet", remedy=remedy)
        with reachable(self._uri):
            for file in files:
                self._client.log_artifact(run_id, str(file), folder)

    def check(self) -> None:
        """Makes sure that runs can be written.

        Raises:
            UserError: the server cannot be reached, or the experiment was deleted.
        """
        with reachable(self._uri):
            self._experiment_id()

    def ask(self) -> None:
        """Whether the server answers at all.

        Raises:
            UserError: it does not.
        """
        with reachable(self._uri):
            self._client.get_experiment_by_name(EXPERIMENT)

    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            try:
                return str(self._client.create_experiment(EXPERIMENT))
            except MlflowException:  # another driver was faster
                found = self._client.get_experiment_by_name(EXPERIMENT)
                if found is None:
                    raise
        if found.lifecycle_stage == LifecycleStage.DELETED:
            number = found.experiment_id
            remedy = (
                f"`MLFLOW_TRACKING_URI={self._uri} mlflow experiments restore -x {number}` brings "
                f"it back; on the server `mlflow gc --experiment-ids {number}` removes it for good"
            )
            where = f"{self._uri}: the experiment {EXPERIMENT!r}"
            raise UserError(where, "was deleted", rule="MLflow keeps its name", remedy=remedy)
        return str(found.experiment_id)

    def _found(self, search: str, created_ms: int) -> dict[int | None, list[Run]]:
        """The runs of every trial in whichever experiment, as somebody may have renamed it."""
        pages = _pages(lambda token: self._client.search_experiments(page_token=token))
        names = {str(experiment.experiment_id): experiment.name for experiment in pages}
        wanted = f"tags.`{SEARCH_TAG}` = '{search}'"
        # The latest last: a run that comes meanwhile shifts no other to the next page.
        order = ["attributes.start_time ASC"]
        runs = _pages(
            lambda token: self._client.search_runs(
                list(names), wanted, order_by=order, page_token=token
            )
        )
        return by_trial(runs, created_ms, {i for i, name in names.items() if name == EXPERIMENT})

    def _bring_run(self, state: RunState) -> None:
        run = self._runs.get(state.trial) or self._create(state)
        self._runs[state.trial] = run
        run_id = run.info.run_id
        known = self._done.get(state.trial)
        old = set(known.points) if known else set()
        metrics = [Metric(p.name, p.value, p.at_ms, p.step) for p in state.points if p not in old]
        params = [Param(name, value) for name, value in state.params.items()] if not known else []
        tags = [RunTag(name, value) for name, value in self._tags(state).items()]
        for batch in _batches(metrics, METRICS_A_BATCH):
            self._client.log_batch(run_id, metrics=batch)
        for batch in _batches(params, PARAMS_A_BATCH):
            self._client.log_batch(run_id, params=batch)
        for batch in _batches(tags, TAGS_A_BATCH):
            self._client.log_batch(run_id, tags=batch)
        for name in END_TAGS & (known.tags if known else run.data.tags).keys() - state.tags.keys():
            self._client.delete_tag(run_id, name)  # what had ended goes on
        if state.status not in UNENDED:
            self._client.set_terminated(run_id, state.status, state.ended_ms)
        elif (known.status if known else run.info.status) != state.status:
            self._client.update_run(run_id, state.status)  # paused, or going on

    def _create(self, state: RunState) -> Run:
        tags, is_parent = self._tags(state), state.trial is None
        experiment = self._experiment_id() if is_parent else self._runs[None].info.experiment_id
        # What a slow server does late it would do twice: repeated by MLflow, a run has a twin.
        with _environment(_RETRIES, "0"):
            return self._client.create_run(experiment, state.started_ms, tags, run_name=state.name)

    def _tags(self, state: RunState) -> dict[str, str]:
        if state.trial is None:
            return state.tags
        return {**state.tags, PARENT_TAG: self._runs[None].info.run_id}

    def _copy_checkpoint(self, state: RunState) -> None:
        """The best weights among the run's artifacts, copied within S3."""
        if state.checkpoint_key is None:
            return
        key, run_id = state.checkpoint_key, self._runs[state.trial].info.run_id
        run = self._client.get_run(run_id)
        try:
            folder = artifact_place(run.info.artifact_uri, self._artifacts)
        except UserError as error:  # it stays so while this process lives
            log.warning("run %s gets no weights: %s", run_id, error)
            return
        target = folder / f"{ARTIFACT_FOLDER}/{WEIGHTS}"
        if run.data.tags.get(COPIED_TAG) == key and self._objects.exists(target):
            return
        try:
            self._objects.copy(weights_place(self._objects, self._checkpoints, key), target)
            self._client.set_tag(run_id, COPIED_TAG, key)
        except (AbsentObjectError, DamagedCheckpointError) as error:
            log.warning("run %s gets no weights: %s", run_id, error)


def by_trial(
    runs: Iterable[Run], created_ms: int, home: Collection[str] = ()
) -> dict[int | None, list[Run]]:
    """Runs that bear a search's name, by trial, of those that are of the search created then: there
    may have been another of its name, or be one in another database.

    A trial may have several, where writers were at work at once: the eldest comes first, in
    whichever order they are found, and each once, though pages may repeat it. What somebody copied
    to another experiment than that of the search's own run is left; that is ``home`` if it has one
    there, or if it has none at all and its trials are there.
    """
    known = {_id(run): run for run in runs if KIND_TAG not in run.data.tags}
    strangers = {
        _id(run)
        for run in known.values()
        if TRIAL_TAG not in run.data.tags
        # Earlier versions have no such tag, but gave the parent the search's time as they do now.
        and run.data.tags.get(CREATED_TAG, str(run.info.start_time)) != str(created_ms)
    }

    def is_ours(run: Run) -> bool:
        tags = run.data.tags
        if TRIAL_TAG not in tags:
            return _id(run) not in strangers
        if CREATED_TAG in tags:
            return bool(tags[CREATED_TAG] == str(created_ms))
        return run.info.start_time >= created_ms and tags.get(PARENT_TAG) not in strangers

    ours = sorted(filter(is_ours, known.values()), key=_age)
    parents = [run for run in ours if TRIAL_TAG not in run.data.tags]
    parents.sort(key=lambda run: run.info.experiment_id not in home)
    places = {run.info.experiment_id for run in parents[:1] or ours}
    places = places & set(home) or places
    found: dict[int | None, list[Run]] = {}
    for run in ours:
        if run.info.experiment_id in places:
            trial = run.data.tags.get(TRIAL_TAG)
            found.setdefault(int(trial) if trial is not None else None, []).append(run)
    return found


def _id(run: Run) -> str:
    return str(run.info.run_id)


def _age(run: Run) -> tuple[int, str]:
    return run.info.start_time, _id(run)


def artifact_place(artifact_uri: str, artifact_root: str | None) -> Place:
    """Where in S3 the artifacts of a run lie.

    Raises:
        UserError: the server proxies artifacts and nobody said to where, or they lie elsewhere.
    """
    parts = urlparse(artifact_uri)
    if parts.scheme == "s3":
        return parse_place(artifact_uri)
    if parts.scheme != "mlflow-artifacts":
        rule = "s3://BUCKET/KEY, or mlflow-artifacts: where the server passes them on to S3"
        remedy = "start the MLflow server with an --artifacts-destination in S3"
        raise UserError(artifact_uri, "an artifact place outside S3", rule=rule, remedy=remedy)
    if artifact_root is None:
        remedy = "set HOPETUNE_MLFLOW_ARTIFACT_ROOT to the server's --artifacts-destination"
        raise UserError(artifact_uri, "an artifact place behind the MLflow server", remedy=remedy)
    return parse_place(artifact_root) / parts.path.lstrip("/")


def registered_checkpoints(settings: Settings) -> frozenset[str]:
    """Keys of the checkpoints that versions of models name.

    Raises:
        UserError: no server is set, or it cannot be reached.
    """
    client = connect(settings)
    with reachable(settings.require("mlflow_uri")):
        versions = _pages(lambda token: client.search_model_versions(page_token=token))
        tags = [version.tags for version in versions]
    return frozenset(str(t[CHECKPOINT_TAG]) for t in tags if CHECKPOINT_TAG in t)


def _pages(ask: Callable[[str | None], Any]) -> Iterator[Any]:
    token: str | None = None
    while True:
        page = ask(token)
        yield from page
        token = page.token
        if not token:
            return


# -- the registry ----------------------------------------------------------------------------------

KIND_TAG = "hopetune.kind"


@dataclass(frozen=True)
class Candidate:
    """A trained network with the evidence for it."""

    search: str
    created_ms: int
    """When the search was created."""
    trial: int
    weights_file: Path
    params: dict[str, str]
    metrics: dict[str, float]
    evidence: dict[str, str]
    figures: tuple[Path, ...] = ()


class Registry:
    """Model versions and the alias ``champion``; ``runs`` are those of their searches."""

    def __init__(self, settings: Settings, runs: MlflowRuns) -> None:
        self._uri = settings.require("mlflow_uri")
        self._client = connect(settings)
        self._runs = runs
        _show_the_way_to_artifacts(settings)

    def register(self, model_name: str, candidate: Candidate, replaces: int | None) -> int:
        """Logs a servable model with its evidence, registers it and makes it the champion.

        Args:
            model_name: of the registered model.
            candidate: the network and its evidence.
            replaces: version of the champion that it was compared with; none where there was none.

        Returns:
            The version's number.

        Raises:
            UserError: another champion came meanwhile; this one is registered, but does not
                replace it.
        """
        with reachable(self._uri), _whole_models():
            parent = self._runs.parent_id(candidate.search, candidate.created_ms)
            mlflow.set_experiment(EXPERIMENT)
            tags = {
                SEARCH_TAG: candidate.search,
                TRIAL_TAG: str(candidate.trial),
                KIND_TAG: "promotion",
                **({PARENT_TAG: parent} if parent else {}),
            }
            name = f"{candidate.search}-{candidate.trial:03d}-promotion"
            with _environment(_RETRIES, "0"):
                run = mlflow.start_run(run_name=name, tags=tags)
            with run:
                mlflow.log_params(candidate.params)
                mlflow.log_metrics(candidate.metrics)
                for figure in candidate.figures:
                    mlflow.log_artifact(str(figure))
                logged = self._log_model(candidate)
            version = mlflow.register_model(
                logged.model_uri, model_name, tags=candidate.evidence
            ).version
            if (present := self.champion(model_name)) != replaces:
                raise UserError(
                    f"models:/{model_name}@{CHAMPION}",
                    "another promotion came first",
                    got=f"version {present}",
                    rule=f"the candidate was compared with {replaces or 'none'}",
                    remedy="promote once more: it is compared with the new champion then",
                )
            self._client.set_registered_model_alias(model_name, CHAMPION, version)
            return int(version)

    def roll_back(self, model_name: str) -> tuple[int, int]:
        """Makes the version that the champion replaced the champion again.

        Returns:
            The version that was the champion, and the one that is.

        Raises:
            UserError: there is no champion, it replaced none, or that one is deleted.
        """
        present = self.champion(model_name)
        if present is None:
            raise UserError(f"models:/{model_name}@{CHAMPION}", "no champion to roll back")
        where = f"models:/{model_name}/{present}"
        with reachable(self._uri):
            tags = self._client.get_model_version(model_name, str(present)).tags
            if REPLACES_TAG not in tags:
                rule = f"its tag {REPLACES_TAG!r} would name a version"
                raise UserError(where, "the champion replaced no other", rule=rule)
            former = str(tags[REPLACES_TAG])
            try:
                self._client.get_model_version(model_name, former)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                what = "the version that the champion replaced was deleted"
                remedy = "choose another one's alias `champion` in MLflow"
                raise UserError(where, what, got=f"version {former}", remedy=remedy) from error
            self._client.set_registered_model_alias(model_name, CHAMPION, former)
        return present, int(former)

    def champion(self, model_name: str) -> int | None:
        """The version of the present champion; none where there is none."""
        with reachable(self._uri):
            try:
                version = self._client.get_model_version_by_alias(model_name, CHAMPION)
            except MlflowException as error:
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise
        return int(version.version)

    def download_champion(self, model_name: str, folder: Path) -> Path:
        """The champion's weights as a file below ``folder``.

        Raises:
            UserError: there is no champion of that name.
        """
        version = self.champion(model_name)
        if version is None:
            remedy = "promote a search of this `model_name` first: `hopetune promote SEARCH`"
            if others := self._with_champion():
                remedy += f", or name another model with --model: {', '.join(others)}"
            raise UserError(f"models:/{model_name}@{CHAMPION}", "no champion", remedy=remedy)
        return self.download(model_name, version, folder)

    def _with_champion(self) -> list[str]:
        """Names of the registered models that have a champion."""
        with reachable(self._uri):
            return sorted(
                model.name
                for model in self._client.search_registered_models()
                if CHAMPION in model.aliases
            )

    def download(self, model_name: str, version: int, folder: Path) -> Path:
        """The weights of a version as a file below ``folder``."""
        with reachable(self._uri), _whole_models():
            uri = f"models:/{model_name}/{version}/artifacts/{WEIGHTS}"
            return Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder)))

    def _log_model(self, candidate: Candidate) -> Any:
        import headpose  # noqa: PLC0415 - only its place is needed: its code travels with the model
        import usererror  # noqa: PLC0415

        code = [str(Path(str(headpose.__file__)).parent), str(usererror.__file__)]
        return mlflow.pyfunc.log_model(
            name="headpose",
            python_model=str(Path(__file__).with_name("served_model.py")),
            artifacts={"weights": str(candidate.weights_file)},
            code_paths=code,
            signature=_signature(),
            input_example=np.zeros((1, 64, 64, 3), np.uint8),
            pip_requirements=pinned(requirements_of(_backbone(candidate.weights_file))),
        )


def requirements_of(backbone: str) -> list[str]:
    """The packages that a served network needs."""
    common = ["torch", "torchvision", "numpy", "pillow", "safetensors"]
    return [*common, "timm"] if backbone in FROM_TIMM else common


def pinned(packages: Iterable[str]) -> list[str]:
    """Packages in the versions that are installed here, as an index has them: it serves none with a
    local ending such as torch's ``+cu130``."""
    versions = {name: importlib.metadata.version(name).partition("+")[0] for name in packages}
    return [f"{name}=={version}" for name, version in versions.items()]


def _backbone(weights: Path) -> str:
    # Here, as every driver imports this module: torch would make it start seconds later.
    from headpose.networks.snapshots import read_weights  # noqa: PLC0415

    return read_weights(weights.read_bytes(), str(weights)).backbone


def _signature() -> ModelSignature:
    # Unnamed: with a name, MLflow hands the model a dictionary.
    images = TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))
    degrees = TensorSpec(np.dtype(np.float32), (-1, 3))
    return ModelSignature(Schema([images]), Schema([degrees]))


def _batches(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
