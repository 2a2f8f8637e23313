"""How much of prompts a step may read beside answers that are being written."""

from collections.abc import Callable

STRETCH = 1.45
"""By how much a step may take longer for each prompt that is read in it."""

LEAST = 8  # tokens: a prompt is always read on
_CROWD = 16  # more prompts make no difference
_REFRESH = 64  # after so many steps with prompts, one without says anew what answers alone take
_NEW = 0.25  # weight of the newest measurement


class Pace:
    """Bounds the tokens of prompts in a step by the time that they take.

    Whoever reads an answer waits for every step, and one that reads a large part of a prompt takes many times as long
    as one that only goes on with answers. Measured is what answers take alone, and what each token of a prompt adds. A
    lone prompt hardly shows; the more of them wait for their first token, the longer a step may be.
    """

    def __init__(self, rounded: Callable[[int], int]) -> None:
        """`rounded`: answers of one number, so rounded, are taken to need the same time."""
        self._rounded = rounded
        self._alone: dict[int, float] = {}  # rounded rows of answers -> seconds
        self._token_s: float | None = None  # what a token of a prompt adds
        self._mixed = 0  # steps since answers were alone

    def most(self, rows: int, prompts: int, budget: int) -> int:
        """How many tokens of prompts the next step may read; 0 where it is to show what the answers take alone.

        Args:
            rows: tokens of answers in it, guesses included; at least one.
            prompts: how many are being read.
            budget: the most in any case.
        """
        alone = self._alone.get(self._rounded(rows))
        if alone is None or self._mixed >= _REFRESH:
            return 0
        if self._token_s is None:
            return min(budget, LEAST)
        longer = alone * (STRETCH ** min(prompts, _CROWD) - 1)
        return min(budget, max(LEAST, int(longer / self._token_s)))

    def took(self, rows: int, prompt_tokens: int, seconds: float) -> None:
        """A step took so long: with `rows` tokens of answers and `prompt_tokens` of prompts."""
        if not rows:
            return
        place = self._rounded(rows)
        if not prompt_tokens:
            self._mixed = 0
            self._alone[place] = _mean(self._alone.get(place), seconds)
            return
        self._mixed += 1
        alone = self._alone.get(place)
        if alone is not None:
            self._token_s = _mean(self._token_s, max(seconds - alone, alone / 100) / prompt_tokens)


def _mean(before: float | None, now: float) -> float:
    return now if before is None else before + _NEW * (now - before)
