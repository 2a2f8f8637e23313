"""How an endpoint's condition follows from what happens to it."""

from __future__ import annotations

from parkway.router.candidate import Candidate
from parkway.router.condition import Condition
from parkway.router.endpoint import Endpoint

ENDPOINT = Endpoint(endpoint_id="e1", model="m", url="http://h:1/v1/", upstream_model="m")


class Wakes:
    """Counts how often a check was asked for."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def test_one_that_was_never_checked_is_usable() -> None:
    assert Candidate(ENDPOINT, Wakes()).usable


def test_only_failures_in_a_row_eject() -> None:
    candidate = Candidate(ENDPOINT, Wakes())
    for _ in range(5):
        candidate.circuit.failed_check("no answer", failures_to_eject=2)
        candidate.circuit.passed()
    assert candidate.condition is Condition.HEALTHY
    candidate.circuit.failed_check("no answer", failures_to_eject=2)
    assert candidate.usable
    candidate.circuit.failed_check("no answer", failures_to_eject=2)
    assert candidate.condition is Condition.EJECTED
    assert not candidate.usable


def test_only_successes_in_a_row_restore() -> None:
    candidate = Candidate(ENDPOINT, Wakes())
    candidate.circuit.failed_check("no answer", failures_to_eject=1)
    candidate.circuit.passed(successes_to_restore=2)
    candidate.circuit.failed_check("no answer", failures_to_eject=1)
    candidate.circuit.passed(successes_to_restore=2)
    assert candidate.condition is Condition.EJECTED
    candidate.circuit.passed(successes_to_restore=2)
    assert candidate.condition is Condition.HEALTHY


def test_a_suspicion_asks_for_one_check() -> None:
    wakes = Wakes()
    candidate = Candidate(ENDPOINT, wakes)
    candidate.check_at = 1e9
    for _ in range(3):
        candidate.suspect("connection refused")
    assert (candidate.condition, candidate.check_at, wakes.times) == (Condition.SUSPECT, 0.0, 1)
    assert candidate.usable, "as the last resort"


def test_a_live_failure_does_not_soften_an_ejection() -> None:
    candidate = Candidate(ENDPOINT, Wakes())
    candidate.circuit.failed_check("no answer", failures_to_eject=1)
    candidate.suspect("the connection broke within an answer")
    assert candidate.condition is Condition.EJECTED


def test_the_head_of_a_request() -> None:
    candidate = Candidate(ENDPOINT, Wakes())
    lines = candidate.head("POST", candidate.base_path + "/chat/completions").decode().split("\r\n")
    assert lines[:2] == ["POST /v1/chat/completions HTTP/1.1", "host: h:1"]
    assert lines[-1] == ""
    assert candidate.head("GET", "/a b/\u00e9?x#y").startswith(b"GET /a%20b/%C3%A9%3Fx%23y HTTP/1.1\r\n")
