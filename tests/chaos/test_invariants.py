"""The suite's own eyes: work that was done twice is seen, and told from what was in flight."""

import json

from tests.chaos.gate import Change
from tests.chaos.hits import Hit
from tests.chaos.invariants import equals_undisturbed, nothing_trained_twice, study_is_whole
from tests.chaos.watching import Epoch, Trial


def metrics(seconds: float) -> dict[str, float]:
    return {"val_mae": 5.0, "epoch_seconds": seconds, "images_per_second": 100 / seconds}


def trial(number: int = 0, state: str = "COMPLETE") -> Trial:
    """Two epochs, recorded 10 s apart."""
    epochs = {n: Epoch(10.0 * n, metrics(n), f"trunk/{n}", False) for n in (1, 2)}
    curve = {1: 5.0, 2: 5.0}
    return Trial(number, {"alpha": 0.5}, state, 5.0, "completed", set(), epochs, curve)


def stored(at_s: float, key: str, *seconds: float, method: str = "PUT", node: str = "n1") -> Change:
    history = [metrics(s) for s in seconds]
    body = json.dumps({"key": key, "history": history}).encode()
    name = "manifest.json" if method == "PUT" else "optimiser-1.safetensors"
    return Change(at_s, node, method, f"/hopetune/checkpoints/{key}/{name}", 200, body)


def hit(at_s: float, damaged: set[str] | None = None) -> Hit:
    return Hit(7, "kill worker", "s", "", at_s, {0}, damaged=damaged or set())


def test_a_worker_has_reported_only_what_its_own_attempt_recorded() -> None:
    one = trial()  # its latest epoch is recorded at 20 s
    one.attempts = ((1.0, "n1"),)
    assert one.has_reported
    one.attempts = ((1.0, "n1"), (21.0, "n2"))
    assert not one.has_reported


FIRST, AGAIN = stored(11.0, "trunk/1", 1.0), stored(30.0, "trunk/2", 1.5, 2.0)


def test_an_epoch_that_was_stored_and_is_trained_again_is_a_violation() -> None:
    found = nothing_trained_twice([FIRST, AGAIN], [trial()], [hit(15.0)])
    assert found == ["work: trial 0 epoch 1 was stored 4.0 s before fault 7 and trained again"]


def test_an_epoch_that_was_not_stored_when_its_worker_died_may_be_trained_again() -> None:
    fault = hit(10.5)
    assert nothing_trained_twice([FIRST, AGAIN], [trial()], [fault]) == []
    assert fault.lost_epochs == 1
    assert fault.lost_s == 1.0 + 0.5, "the epoch itself, and half a second of the next one"


def test_what_a_node_stored_that_had_been_given_up_may_be_in_flight_elsewhere() -> None:
    late, in_time, next_one = (5.0, "n2"), (5.0, "n1"), (14.0, "n3")

    def found(*attempts: tuple[float, str]) -> list[str]:
        one = trial()
        one.attempts = ((1.0, "n1"), *attempts)
        again = stored(30.0, "trunk/2", 1.5, 2.0, node=attempts[-1][1] if attempts else "n1")
        return nothing_trained_twice([FIRST, again], [one], [hit(15.0)])

    assert found(late) == [], "n1 stored it at 11 s, when n2 had been at it since 5 s"
    assert found()
    assert found(in_time)
    assert found(late, next_one), "whoever began at 14 s could find it"


def test_what_a_dead_worker_left_on_its_disk_counts_as_trained_before_its_successor_was() -> None:
    """Another process of its node brings it, long after the second fault: of the store."""

    def found(*, at_s: float) -> list[str]:
        one = trial()  # its epoch 1 is reported at 10 s
        one.attempts = ((1.0, "n1"), (8.0, "n2"))
        left = stored(at_s, "trunk/1", 1.5, node="n1")
        its_own = stored(10.5, "trunk/1", 1.0, node="n2")
        died, store = hit(7.0), Hit(8, "kill S3", "s", "", 11.0)
        return nothing_trained_twice([left, its_own], [one], [died, store])

    assert found(at_s=20.0) == []
    assert found(at_s=6.0) == [
        "work: trial 0 epoch 1 was stored 1.0 s before fault 7 and trained again"
    ]


def test_what_was_damaged_or_collected_may_be_trained_again() -> None:
    assert nothing_trained_twice([FIRST, AGAIN], [trial()], [hit(15.0, {"trunk/1"})]) == []
    removed = stored(12.0, "trunk/1", method="DELETE")
    assert nothing_trained_twice([FIRST, removed, AGAIN], [trial()], [hit(15.0)]) == []


def test_a_damaged_checkpoint_that_is_set_aside_is_not_taken_for_one_that_is_stored() -> None:
    copied = Change(
        12.0, "n1", "PUT", "/hopetune/damaged/checkpoints/trunk/1/manifest.json", 200, b""
    )
    assert nothing_trained_twice([FIRST, copied], [trial()], []) == []


def fetched(at_s: float, key: str) -> Change:
    return Change(at_s, "n2", "GET", f"/hopetune/checkpoints/{key}/weights-1.safetensors", 200, b"")


def went_on(*changes: Change, damaged: set[str] | None = None) -> list[str]:
    """A trial of which epochs 1 and 2 were reported and stored, hit in its third."""
    one = trial()
    one.epochs[3] = Epoch(40.0, metrics(3), "trunk/3", False)
    both = [stored(11.0, "trunk/1", 1.0), stored(21.0, "trunk/2", 1.0, 2.0)]
    fault = hit(25.0, damaged)
    return nothing_trained_twice([*both, *changes], [one], [fault], is_watched=True)


def test_a_trial_goes_on_from_its_latest_stored_state_or_it_is_a_violation() -> None:
    assert went_on(fetched(30.0, "trunk/2")) == []
    found = went_on(fetched(30.0, "trunk/1"))
    assert found[-1] == "work: trial 0, fault 7: went on from epoch 1, though 2 was stored"
    assert went_on(fetched(29.0, "trunk/2"), fetched(30.0, "trunk/1"), damaged={"trunk/2"}) == []
    assert went_on(fetched(29.0, "trunk/2"), damaged={"trunk/2", "trunk/1"}) == []
    assert went_on(fetched(29.0, "trunk/2"), damaged={"trunk/2"}) == [
        "work: trial 0, fault 7: went on from epoch 0, though 1 was stored"
    ]
    collected = stored(27.0, "trunk/1", method="DELETE")  # nobody knew yet that 2 was damaged
    assert went_on(collected, fetched(29.0, "trunk/2"), damaged={"trunk/2"}) == []
    lost = stored(27.0, "trunk/2", method="DELETE")
    assert went_on(lost, fetched(29.0, "trunk/1")), "nothing was damaged: it had to stay"
    assert went_on() == ["work: trial 0, fault 7: fetched nothing, though epoch 2 was stored"]


def test_work_that_was_done_twice_without_any_fault_is_a_violation() -> None:
    found = nothing_trained_twice([FIRST, AGAIN], [trial()], [])
    assert found == ["work: trial 0 epoch 1 was trained twice, though nothing had happened"]


def test_a_suite_that_sees_nothing_says_so() -> None:
    found = nothing_trained_twice([], [trial()], [])
    assert found == ["suite: it saw nothing being stored of trial 0"]


def test_a_lost_a_failed_and_a_different_trial_are_violations() -> None:
    assert study_is_whole([trial(0), trial(1)], 2) == []
    assert study_is_whole([trial(0)], 2)
    assert study_is_whole([trial(0), trial(1, "FAIL")], 2)
    other = trial(0)
    other.epochs[2].metrics["val_mae"] = 4.9
    assert equals_undisturbed([trial(0)], [trial(0)]) == []
    assert equals_undisturbed([other], [trial(0)]) == ["result: trial 0 has other metrics"]
