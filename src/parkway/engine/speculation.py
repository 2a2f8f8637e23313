"""Guessing the next tokens from what was written before, so that one pass of the model may give several.

Source: Saxena, 2023, "Prompt Lookup Decoding"; the check of guesses by sampling is that of Leviathan et al., 2022,
arXiv:2211.17192, for guesses that are certain.
"""

from collections.abc import Sequence

MOST_GUESSES = 8
_RUN = 3  # tokens of an end that has to have occurred before
_FIRST_GUESSES = 4
_PAUSE = 16  # tokens without a guess after guesses that were all wrong, doubled each time
_LONGEST_PAUSE = 1024


class Lookup:
    """Guesses how one sequence goes on: as it did after the last place that ended in the same tokens.

    Answers that quote their prompt, or repeat a form, gain much; others gain nothing, and then it soon stops trying:
    the number of guesses follows how many were right.
    """

    def __init__(self) -> None:
        self._places: dict[tuple[int, ...], int] = {}  # a run of tokens -> the place behind its latest occurrence
        self._indexed = 0
        self._count = _FIRST_GUESSES
        self._pause = _PAUSE
        self._resume_at = 0  # length of the sequence from which on to guess again

    def guess(self, tokens: Sequence[int], most: int) -> list[int]:
        """The tokens that may follow `tokens`, at most `most`; empty where nothing suggests any."""
        if len(tokens) < self._resume_at or most < 1:
            return []
        self._index(tokens)
        place = self._places.get(tuple(tokens[-_RUN:]))
        if place is None:
            return []
        guesses: list[int] = []
        for each in range(place, place + min(self._count, most)):
            # A text that repeats itself goes on into the guesses.
            guesses.append(tokens[each] if each < len(tokens) else guesses[each - len(tokens)])
        return guesses

    def told(self, guessed: int, right: int, length: int) -> None:
        """Of `guessed` tokens the first `right` were chosen; the sequence has `length` tokens now."""
        if not guessed:
            return
        if right == guessed:
            self._count = min(2 * self._count, MOST_GUESSES)
            self._pause = _PAUSE
        elif right:
            self._count = max(1, min(right + 1, MOST_GUESSES))
            self._pause = _PAUSE
        elif self._count > 1:
            self._count //= 2
        else:
            self._resume_at = length + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _index(self, tokens: Sequence[int]) -> None:
        """Note every run of tokens but the one at the very end, which would only find itself."""
        for place in range(max(self._indexed, _RUN), len(tokens)):
            self._places[tuple(tokens[place - _RUN : place])] = place
        self._indexed = len(tokens)
