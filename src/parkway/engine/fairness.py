"""Whose turn it is: the client who has been served least."""

from collections.abc import Iterable

# An answer's token takes a pass of the model for itself; tokens of a prompt are read many at once.
_ANSWER_WEIGHT = 2
_REMEMBERED = 10_000  # clients; beyond it those are forgotten who would be lifted anyway


class TokenCounters:
    """Counts what each client was served, in tokens, so that a busy one does not push the others aside.

    A client who comes back after a pause is lifted to the least of those who wait: nobody saves up turns.

    Source: Sheng et al., 2024, "Fairness in Serving Large Language Models" (virtual token counter), arXiv:2401.00588.
    """

    def __init__(self) -> None:
        self._served: dict[str, int] = {}
        self._floor = 0  # what the client had who was the last to be begun

    def join(self, client: str, waiting: Iterable[str]) -> None:
        """`client`, who had nobody in the queue, now has; `waiting` are the clients who wait already."""
        least = min(map(self.served, waiting), default=self._floor)
        self._served[client] = max(self._served.get(client, 0), least)

    def served(self, client: str) -> int:
        return self._served.get(client, self._floor)

    def begun(self, client: str) -> None:
        """A sequence of `client` got its turn."""
        self._floor = max(self._floor, self.served(client))
        if len(self._served) > _REMEMBERED:
            self._served = {name: tokens for name, tokens in self._served.items() if tokens > self._floor}

    def charge(self, client: str, *, prompt: int = 0, answer: int = 0) -> None:
        """Add tokens of a prompt and of an answer to what `client` was served."""
        self._served[client] = self.served(client) + prompt + _ANSWER_WEIGHT * answer
