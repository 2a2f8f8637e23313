"""The back-off: doubling, bounded, forgiving."""

from hypothesis import given
from hypothesis import strategies as st

from parkway.launch.backoff import Backoff


def test_doubles_up_to_the_limit() -> None:
    backoff = Backoff(first_s=0.2, most_s=10.0)
    assert [backoff.delay_s(failures) for failures in range(1, 9)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]


@given(failures=st.integers(min_value=1, max_value=10**9))
def test_never_over_the_limit_however_often_it_failed(failures: int) -> None:
    assert 0.2 <= Backoff().delay_s(failures) <= 10.0


def test_a_healthy_run_is_forgiven() -> None:
    backoff = Backoff(reset_s=60.0)
    assert backoff.failures(before=7, ran_s=59.9) == 8
    assert backoff.failures(before=7, ran_s=60.0) == 1
