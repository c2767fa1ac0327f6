"""What lies on a node's disk when the worker that trained it is gone.

Workers upload what they train, and what dead ones of their node left behind. But none may come
after the last of them, which goes to make room on its GPU for somebody else, or one may come late;
and a store that was away may still lack much.
"""

import logging
import time
from collections.abc import Sequence

from cluster.settings import load_settings
from tuning.objects import Objects
from tuning.places import checkpoints, spool
from tuning.spool import Spool
from tuning.uploads import CLOSE_PATIENCE_S, Uploads

log = logging.getLogger(__name__)

POLL_S = 0.5  # untuned


def bring_leftovers(keys: Sequence[str]) -> None:
    """Uploads what dead processes left on this node, until nothing of these keys lies on its disk;
    what a living process has there is that one's to upload, and waited for."""
    settings = load_settings()
    where = Spool(spool(settings), settings.spool_bytes)
    uploads = Uploads(Objects(settings), checkpoints(settings), where, log.warning)
    # Twice, as a file that is moved from one process to another meanwhile may be missed once.
    while where.find(keys) or where.find(keys):
        time.sleep(POLL_S)
    uploads.flush(CLOSE_PATIENCE_S)
    uploads.close()
