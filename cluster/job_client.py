"""Ray's own client of the Jobs API, without its endless waits and its lines on the terminal."""

import logging
from typing import Any

from ray.dashboard.modules.job import sdk
from ray.job_submission import JobSubmissionClient

TIMEOUTS_S = (5.0, 60.0)
"""To connect, and between two pieces of an answer: a busy head takes seconds. Untuned."""

logging.getLogger("ray").setLevel(logging.WARNING)  # it reports each upload
sdk.logger.setLevel(logging.WARNING)  # and the end of each log, at a level of its own


class JobClient(JobSubmissionClient):  # type: ignore[misc]
    """Asks a head that takes connections and never answers for a while only."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        return super()._do_request(method, endpoint, timeout=TIMEOUTS_S, **options)
