"""The cluster that a driver is connected to, and its nodes."""

import logging
from collections.abc import Callable, Collection
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tuning.leftovers import bring_leftovers
from usererror import UserError

log = logging.getLogger(__name__)

ID_LABEL = "ray.io/node-id"


def connect(address: str, namespace: str) -> None:
    """Joins the cluster at ``address``, and no other.

    Raises:
        UserError: it does not answer, or this machine is no node of it.
    """
    try:
        ray.init(address=address, namespace=namespace, log_to_driver=False, configure_logging=False)
    except ConnectionError as error:
        raise UserError(
            "settings.ray_address",
            "this machine cannot join the cluster",
            got=address,
            rule="a driver runs on a node of its cluster, which is up",
            remedy="`hopetune submit` the search, or run it on a node; see `hopetune status`",
        ) from error


def gpus() -> float:
    """GPUs that the connected cluster offers, logical ones included."""
    return float(ray.cluster_resources().get("GPU", 0))


def living(gpus: float) -> list[str]:
    """Addresses of the nodes that could have a trial which asks for so many GPUs."""
    fitting = [node for node in _living() if node["Resources"].get("GPU", 0.0) >= gpus]
    return [node["NodeManagerAddress"] for node in fitting]


def ids_of(addresses: Collection[str]) -> list[str]:
    """What Ray calls the nodes at these addresses, dead ones included."""
    found = ray.nodes() if addresses else []
    return sorted(n["NodeID"] for n in found if n["NodeManagerAddress"] in addresses)


def bring(keys: Collection[str], node: str | None = None) -> Callable[[], bool]:
    """Has every living node, or the one at an address, bring the checkpoints of these keys from its
    disk to the store; what this returns says whether none of them has any left.

    It takes no GPU, and no CPU that a trial could have: workers need not stay for it.
    """
    task = ray.remote(num_cpus=0, max_retries=3)(bring_leftovers)  # retries are untuned
    tasks = [
        task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(living["NodeID"], soft=False)
        ).remote(sorted(keys))
        for living in _living()
        if node in (None, living["NodeManagerAddress"])
    ]

    def is_over() -> bool:
        for ended in ray.wait(tasks, num_returns=len(tasks), timeout=0)[0] if tasks else ():
            tasks.remove(ended)
            try:
                ray.get(ended)
            except ray.exceptions.RayError as error:  # its node died, or its disk cannot be read
                log.warning("a node does not bring its checkpoints: %s", error)
        return not tasks

    return is_over


def _living() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
