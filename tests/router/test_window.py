"""Counts of the last seconds, and the allowance made of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from parkway.router.window import Allowance, Window


@given(st.lists(st.tuples(st.floats(0, 30), st.booleans()), max_size=60))
def test_a_window_counts_the_last_ten_slots(steps: list[tuple[float, bool]]) -> None:
    window, now, seen = Window(10.0), 1000.0, []
    for pause, failed in steps:
        now += pause
        window.add(now, all=1, some=int(failed))
        seen.append((int(now / 1.0), failed))
    recent = [failed for slot, failed in seen if slot > int(now / 1.0) - 10]
    assert (window.all, window.some) == (len(recent), sum(recent))
    window.add(now + 11)
    assert (window.all, window.some) == (0, 0)


def test_an_allowance_is_a_share_and_a_little_more() -> None:
    allowance = Allowance(share=0.2, min_per_s=0.5, window_s=10.0)
    assert [allowance.take(0.0) for _ in range(6)] == [True] * 5 + [False]
    for _ in range(100):
        allowance.request(1.0)
    assert sum(allowance.take(1.0) for _ in range(100)) == 20
    assert sum(allowance.take(30.0) for _ in range(100)) == 5, "what is long ago buys nothing"
