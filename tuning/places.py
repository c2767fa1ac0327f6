"""Where things lie: the one list of folders and of beginnings of keys."""

import socket
from pathlib import Path

from cluster.settings import Settings
from tuning.objects import Place


def checkpoints(settings: Settings) -> Place:
    """Checkpoints of all searches, one folder for each prefix key."""
    return Place(settings.s3_bucket, "checkpoints")


def spool(settings: Settings) -> Path:
    """Checkpoints that wait on this node for their upload, one folder for each process.

    A node has its own even where all share one state folder (a home that is mounted over the
    network): another would take them for torn by a power cut and remove them.
    """
    return settings.state_dir / "spool" / socket.gethostname()


def preparing(settings: Settings) -> Path:
    """Sets that are prepared for S3, one folder for each place, until they are uploaded."""
    return settings.state_dir / "preparing"


def weights_cache(settings: Settings) -> Path:
    """ImageNet weights that this node has fetched from S3, one folder for each file."""
    return settings.state_dir / "imagenet-cache"


def data_cache(settings: Settings) -> Path:
    """Prepared sets that this node has fetched, one folder for each fingerprint."""
    return settings.state_dir / "data-cache"
