"""A look at a loopback address, never through a proxy."""

import http.client
import urllib.request
from collections.abc import Mapping

from cluster.local.server import UnhealthyError

_TIMEOUT_S = 3.0  # a healthy loopback server answers in milliseconds; untuned

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(url: str, headers: Mapping[str, str] | None = None) -> bytes:
    """The body of a GET that succeeds.

    Raises:
        UnhealthyError: no answer, or not a good one.
    """
    request = urllib.request.Request(url, headers=dict(headers or {}))  # noqa: S310 (http only)
    try:
        with _opener.open(request, timeout=_TIMEOUT_S) as answer:
            body: bytes = answer.read()
            return body
    # HTTPError and URLError are OSErrors; HTTPException is what does not speak HTTP.
    except (OSError, ValueError, http.client.HTTPException) as error:
        is_refusal = isinstance(getattr(error, "reason", error), ConnectionRefusedError)
        raise UnhealthyError(f"GET {url}: {error}", is_refusal=is_refusal) from error
