"""Which questions mean the same: vectors of their texts, and the words in which a small difference is a large one."""

from __future__ import annotations

import heapq
import math
import re
import time
from array import array
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import mul

_CANDIDATES = 8
"""Questions whose cosine is computed: those whose signs differ least. In directions that are spread evenly, vectors at
an angle of a differ in a/pi of their signs (source: Charikar, "Similarity estimation techniques from rounding
algorithms", 2002); those that are as close as the threshold asks come first by far."""

_MOST_ALIKE = 1000
"""Questions that differ in their text alone and are compared with one another."""

_TELLING = re.compile(
    r"""[^\W\d_]*\d[\w.,:/-]* | ["'`“”«»][^"'`“”«»]*["'`“”«»] | [<>=+*/%^&|~!@#$€£-]+ |
        \b(?:not?|nor|never|none|without|except|unless|only|all|any|every|before|after|above|below|over|under|more|less|
        most|least|first|last|from|to|into|increase|decrease|add|remove|enable|disable|start|stop|on|off|up|down|in|out|
        left|right|hot|cold|big|small|large|long|short|high|low|old|new|min|max|minimum|maximum|best|worst|open|close|
        if|or|and|who|when|where|why|how|which|n't|nicht|kein\w*|ohne|nie|pas|sans|jamais|no|sin|nunca)\b |
        n['’]t\b""",
    re.VERBOSE | re.IGNORECASE,
)
"""Numbers, quotations, signs, and words whose exchange turns a question around while its vector hardly moves."""

_NAME = re.compile(r"(?<![.!?:]\s)(?<!^)\b[^\W\d_a-zß-öø-ÿ]\w+")

_WORD = re.compile(r"\w+")

_OPPOSITES = ("un", "in", "im", "il", "ir", "dis", "non", "de", "anti", "mis", "a", "ex", "en", "endo", "exo")


class Wording:
    """The words of a question, as far as they tell it from others that look alike."""

    __slots__ = ("_telling", "_words")

    def __init__(self, text: str) -> None:
        self._words = _WORD.findall(text.lower())
        self._telling = Counter(each.lower() for each in _TELLING.findall(text))
        self._telling.update("name " + each.lower() for each in _NAME.findall(text))

    def may_mean(self, other: Wording) -> bool:
        """Whether nothing in the words speaks against it that both mean the same.

        They have the same numbers, names, quotations and telling words; what both say is said in the same order
        (dogs that chase cats are not cats that chase dogs); and no word of one is the other's with a prefix that
        turns it around.
        """
        if self._telling != other._telling:
            return False
        mine, theirs = set(self._words), set(other._words)
        if [word for word in self._words if word in theirs] != [word for word in other._words if word in mine]:
            return False
        return not (_turns(mine - theirs, theirs) or _turns(theirs - mine, mine))


def _turns(words: set[str], others: set[str]) -> bool:
    return any(word.startswith(prefix) and word[len(prefix) :] in others for word in words for prefix in _OPPOSITES)


@dataclass(frozen=True, slots=True)
class _Asked:
    key: bytes
    vector: array[float]
    signs: int
    wording: Wording
    good_until: float


class Likeness:
    """Questions that were answered, by what else than their text makes them what they are.

    Args:
        threshold: The least cosine of two that mean the same.
        most: Questions that are kept in all; beyond it the groups that were not used for longest go.
        clock: Seconds, monotonic.
    """

    def __init__(self, threshold: float, most: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._threshold = threshold
        self._most = most
        self._ttl_s = ttl_s
        self._clock = clock
        self._groups: OrderedDict[bytes, OrderedDict[bytes, _Asked]] = OrderedDict()
        self._size = 0

    def find(self, rest: bytes, text: str, vector: Sequence[float]) -> list[bytes]:
        """The keys of questions that mean the same, the most alike first."""
        group, unit = self._groups.get(rest), _unit(vector)
        if group is None or unit is None:
            return []
        self._groups.move_to_end(rest)
        signs, wording, now = _signs(unit), Wording(text), self._clock()
        near = heapq.nsmallest(_CANDIDATES, group.values(), key=lambda asked: (asked.signs ^ signs).bit_count())
        found = [
            (sum(map(mul, asked.vector, unit)), asked.key)
            for asked in near
            if asked.good_until > now and len(asked.vector) == len(unit) and asked.wording.may_mean(wording)
        ]
        return [key for cosine, key in sorted(found, reverse=True) if cosine >= self._threshold]

    def learn(self, rest: bytes, key: bytes, text: str, vector: Sequence[float]) -> None:
        """Takes note of a question whose answer is kept under `key`."""
        unit = _unit(vector)
        if unit is None:
            return
        group = self._groups.setdefault(rest, OrderedDict())
        self._groups.move_to_end(rest)
        self._size += key not in group
        group[key] = _Asked(key, unit, _signs(unit), Wording(text), self._clock() + self._ttl_s)
        group.move_to_end(key)
        if len(group) > _MOST_ALIKE:
            group.popitem(last=False)
            self._size -= 1
        while self._size > self._most:
            oldest = next(iter(self._groups.values()))
            oldest.popitem(last=False)
            self._size -= 1
            if not oldest:
                self._groups.popitem(last=False)

    def __len__(self) -> int:
        return self._size


def _unit(vector: Sequence[float]) -> array[float] | None:
    """`vector` with length 1; None where it has no direction."""
    length = math.sqrt(sum(map(mul, vector, vector)))
    if not (0 < length < math.inf):
        return None
    return array("f", [value / length for value in vector])


def _signs(vector: Sequence[float]) -> int:
    """One bit for each number: whether it is above zero."""
    return int("".join("1" if value > 0 else "0" for value in vector), 2)
