"""S3 and MLflow from outside, by their own clients."""

import configparser
from collections.abc import Iterator
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from cluster.settings import Settings

EXPERIMENT = "hopetune"


class Store:
    """The bucket in which checkpoints lie."""

    def __init__(self, settings: Settings) -> None:
        keys = configparser.ConfigParser()
        assert settings.s3_credentials_file is not None
        keys.read(settings.s3_credentials_file)
        self.bucket = settings.s3_bucket
        self.client: Any = boto3.session.Session().client(
            "s3",
            endpoint_url=settings.s3_endpoint,
            aws_access_key_id=keys["default"]["aws_access_key_id"],
            aws_secret_access_key=keys["default"]["aws_secret_access_key"],
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )

    def written(self, below: str) -> Iterator[tuple[str, float]]:
        """Keys, and when each was written, in seconds since the epoch."""
        pages = self.client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self.bucket, Prefix=below):
            for entry in page.get("Contents", ()):
                # Whole seconds, cut off: counted as at the end of the second.
                yield entry["Key"], entry["LastModified"].timestamp() + 1

    def keys(self, below: str) -> Iterator[str]:
        yield from (key for key, _ in self.written(below))

    def get(self, key: str) -> bytes | None:
        try:
            return bytes(self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read())
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                return None
            raise

    def has(self, checkpoint: str) -> bool:
        return self.get(f"checkpoints/{checkpoint}/manifest.json") is not None

    def delete_below(self, prefix: str) -> None:
        for key in list(self.keys(prefix)):
            self.client.delete_object(Bucket=self.bucket, Key=key)

    def parts(self, checkpoint: str) -> list[str]:
        """The objects of a checkpoint beside its manifest."""
        found = self.keys(f"checkpoints/{checkpoint}/")
        return sorted(key for key in found if not key.endswith("manifest.json"))

    def damage(self, checkpoint: str, how: str) -> None:
        """Spoils the weights of a checkpoint as a bad disk would."""
        weights = next(key for key in self.parts(checkpoint) if "/weights" in key)
        content = bytearray(self.get(weights) or b"")
        if how == "flip":
            content[len(content) // 2] ^= 0xFF
        else:
            del content[0 if how == "empty" else len(content) // 2 :]
        self.client.put_object(Bucket=self.bucket, Key=weights, Body=bytes(content))


class Runs:
    """The runs of searches in MLflow."""

    def __init__(self, settings: Settings) -> None:
        self.client = MlflowClient(settings.require("mlflow_uri"))

    def of(self, search: str) -> list[Run]:
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            return []
        wanted = f"tags.`hopetune.search` = '{search}'"
        return list(self.client.search_runs([experiment.experiment_id], wanted, max_results=1000))

    def epochs_shown(self, search: str) -> dict[int, int]:
        """The latest epoch that MLflow has of each trial; nothing while it is away."""
        try:
            found = {}
            for run in self.of(search):
                if trial := run.data.tags.get("hopetune.trial"):
                    history = self.client.get_metric_history(run.info.run_id, "val_mae")
                    found[int(trial)] = max((point.step for point in history), default=0)
        except MlflowException:
            return {}
        return found
