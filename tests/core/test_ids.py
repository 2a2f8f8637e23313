"""Ids sort by time and do not repeat."""

import re
import time

from parkway.core.ids import new_id


def test_form_and_uniqueness() -> None:
    made = [new_id("req") for _ in range(10_000)]
    assert len(set(made)) == len(made)
    assert all(re.fullmatch(r"req_[0-9a-f]{32}", one) for one in made)


def test_they_sort_by_time() -> None:
    made: list[str] = []
    for _ in range(5):
        made.append(new_id("x"))
        time.sleep(0.002)
    assert made == sorted(made)
