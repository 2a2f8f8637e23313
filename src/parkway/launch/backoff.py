"""How long to wait before starting again what has died."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubles from `first_s` to `most_s`, so that a crash costs little and a crash loop costs little CPU.

    A program that ran for `reset_s` seconds is taken to be healthy: its next failure counts as the first again.
    """

    first_s: float = 0.2
    most_s: float = 10.0
    reset_s: float = 60.0

    def delay_s(self, failures: int) -> float:
        """Seconds to wait after the `failures`-th failure in a row (from 1)."""
        # The exponent is bounded: 2.0 ** 1024 would overflow after a night of failures.
        return min(self.most_s, self.first_s * 2.0 ** min(failures - 1, 60))

    def failures(self, before: int, ran_s: float) -> int:
        """The failures in a row after another one, if there were `before` and it ran for `ran_s` seconds."""
        return 1 if ran_s >= self.reset_s else before + 1
