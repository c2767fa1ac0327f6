"""What a trial gets of a cluster, and how many trials run at a time: pure rules.

A cluster does not stay as it was: nodes join late, leave, and come back after their head.
"""

from usererror import UserError

_ROUNDING = 1e-9


def gpus_of_a_trial(wanted: float, offered: float, *, has_had_gpus: bool) -> float:
    """GPUs for each trial of a search; 0: it trains on CPUs.

    Args:
        wanted: ``resources.gpus_per_trial``.
        offered: GPUs that the cluster has now.
        has_had_gpus: an earlier driver of the search found enough of them. It waits for their
            return then: what was begun on GPUs must not crawl on for days on CPUs.

    Raises:
        UserError: the cluster has GPUs, but fewer than one trial asks for.
    """
    if not wanted or has_had_gpus:
        return wanted
    if not offered:
        return 0.0
    if wanted > offered:
        raise UserError(
            "resources.gpus_per_trial",
            "more than there are",
            got=wanted,
            rule=f"the cluster has {offered:g}",
            remedy="ask for fewer, or begin when the cluster has them",
        )
    return wanted


def at_a_time(most: int | None, gpus: float, offered: float) -> int:
    """How many trials may be under way.

    Args:
        most: ``resources.parallel_trials``.
        gpus: what one trial gets, as of :func:`gpus_of_a_trial`.
        offered: GPUs that the cluster has now.
    """
    if most is not None:
        return most
    # One waits at least, so that the next GPU has work at once.
    return max(1, int(offered / gpus + _ROUNDING)) if gpus else 1
