"""Regular expressions that take time in proportion to the text, whatever pattern and text are.

Python's `re` tries one way after another, and some patterns have exponentially many; so patterns that people configure
run here: all ways at once, as a set of positions in the pattern (V. Glushkov, "The abstract theory of automata", 1961;
R. Cox, "Regular Expression Matching Can Be Simple And Fast", 2007). What needs more than that is refused:
backreferences and looking around.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from re import _constants as code  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]
from re import _parser as parser  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]
from typing import Any

MAX_POSITIONS = 1000
"""Letters, classes and dots of a pattern, counted repetitions written out."""

_MAX_REMEMBERED = 20_000

_CATEGORIES: dict[Any, Callable[[str], bool]] = {
    code.CATEGORY_DIGIT: str.isdecimal,
    code.CATEGORY_NOT_DIGIT: lambda char: not char.isdecimal(),
    code.CATEGORY_SPACE: str.isspace,
    code.CATEGORY_NOT_SPACE: lambda char: not char.isspace(),
    code.CATEGORY_WORD: lambda char: char.isalnum() or char == "_",
    code.CATEGORY_NOT_WORD: lambda char: not (char.isalnum() or char == "_"),
}


class _Piece:
    """A part of a pattern: the positions with which it may begin and end, as bits, and whether it may be empty."""

    __slots__ = ("empty", "first", "last")

    def __init__(self, first: int = 0, last: int = 0, empty: bool = True) -> None:
        self.first, self.last, self.empty = first, last, empty


class Automaton:
    """A compiled pattern. Finds what any reading of it matches; greedy and lazy repetitions are the same.

    Args:
        pattern: In Python's syntax; `\\b` may stand at its beginning and its end.

    Raises:
        ValueError: It is wrong, too large, matches nothing at all, or needs what cannot be done in linear time.
    """

    def __init__(self, pattern: str, *, ignore_case: bool = False) -> None:
        try:
            parsed = parser.parse(pattern, re.IGNORECASE if ignore_case else 0)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"not a regular expression: {error}") from error
        flags = parsed.state.flags
        if flags & (re.MULTILINE | re.VERBOSE | re.LOCALE | re.ASCII):
            raise ValueError("of the flags only (?i) and (?s) are known here")
        self._ignore_case = bool(flags & re.IGNORECASE)
        self._any = bool(flags & re.DOTALL)
        self._tests: list[Callable[[str], bool]] = []
        self._follow: list[int] = []
        nodes = list(parsed)
        self._word_starts = bool(nodes) and _is_boundary(nodes[0])
        nodes = nodes[1:] if self._word_starts else nodes
        self._word_ends = bool(nodes) and _is_boundary(nodes[-1])
        nodes = nodes[:-1] if self._word_ends else nodes
        whole = self._sequence(nodes)
        if whole.empty:
            raise ValueError("matches the empty text, so that it would be found everywhere")
        self._first, self._last = whole.first, whole.last
        self._accepting: dict[str, int] = {}
        self._after: dict[int, int] = {}
        self._before: dict[int, int] = {}
        self._precede = [
            sum(1 << other for other, mask in enumerate(self._follow) if mask >> place & 1)
            for place in range(len(self._follow))
        ]

    def spans(self, text: str) -> list[tuple[int, int]]:
        """The places that matches cover, from left to right. Matches that overlap are one place."""
        forward = self._forward(text)
        if not any(forward):
            return []
        spans: list[tuple[int, int]] = []
        backward = covered_behind = 0
        for place in range(len(text) - 1, -1, -1):
            here = forward[place]
            if not here:
                backward = covered_behind = 0
                continue
            ends = self._last if not self._word_ends or _is_edge(text, place + 1) else 0
            backward = (ends | (self._predecessors(backward) if backward else 0)) & here
            if backward:
                joined = covered_behind and self._successors(backward) & covered_behind
                if joined:
                    spans[-1] = (place, spans[-1][1])
                else:
                    spans.append((place, place + 1))
            covered_behind = backward
        spans.reverse()
        return spans

    def unsettled(self, text: str) -> int:
        """From where on a match may be that is not complete yet."""
        forward = self._forward(text)
        for gap in range(len(text), 0, -1):
            alive = forward[gap - 1]
            if not alive or not self._successors(alive):
                if gap == len(text) and self._word_ends and alive & self._last:
                    continue
                return gap
        return 0

    def _forward(self, text: str) -> list[int]:
        """For each character the positions of the pattern at which it may stand in a match that began somewhere."""
        accepting, after, first = self._accepting, self._after, self._first
        states: list[int] = []
        state = 0
        for place, char in enumerate(text):
            accepts = accepting.get(char)
            if accepts is None:
                accepts = self._accepts(char)
            if not accepts:
                state = 0
            else:
                begins = first if not self._word_starts or _is_edge(text, place) else 0
                following = after.get(state)
                if following is None:
                    following = self._successors(state)
                state = (following | begins) & accepts
            states.append(state)
        return states

    def _accepts(self, char: str) -> int:
        if len(self._accepting) > _MAX_REMEMBERED:
            self._accepting.clear()
        mask = 0
        for place, test in enumerate(self._tests):
            if test(char):
                mask |= 1 << place
        self._accepting[char] = mask
        return mask

    def _successors(self, state: int) -> int:
        return _union(state, self._follow, self._after)

    def _predecessors(self, state: int) -> int:
        return _union(state, self._precede, self._before)

    def _sequence(self, nodes: Any) -> _Piece:
        whole = _Piece()
        for node in nodes:
            piece = self._piece(node)
            self._connect(whole.last, piece.first)
            whole = _Piece(
                whole.first | (piece.first if whole.empty else 0),
                piece.last | (whole.last if piece.empty else 0),
                whole.empty and piece.empty,
            )
        return whole

    def _piece(self, node: Any) -> _Piece:
        kind, value = node
        if kind is code.SUBPATTERN:
            if value[1] or value[2]:
                raise ValueError("flags for a part of a pattern are not known here")
            return self._sequence(value[3])
        if kind is code.BRANCH:
            pieces = [self._sequence(branch) for branch in value[1]]
            whole = _Piece(empty=False)
            for piece in pieces:
                whole = _Piece(whole.first | piece.first, whole.last | piece.last, whole.empty or piece.empty)
            return whole
        if kind in (code.MAX_REPEAT, code.MIN_REPEAT):
            return self._repeat(*value)
        test = self._test(kind, value)
        if len(self._tests) >= MAX_POSITIONS:
            raise ValueError(f"longer than {MAX_POSITIONS} characters with its repetitions written out")
        self._tests.append(test)
        self._follow.append(0)
        bit = 1 << len(self._tests) - 1
        return _Piece(bit, bit, empty=False)

    def _repeat(self, least: int, most: Any, nodes: Any) -> _Piece:
        endless = most is code.MAXREPEAT
        copies = max(1, least) if endless else most
        if copies > MAX_POSITIONS:
            raise ValueError(f"repeats something {copies} times; at most {MAX_POSITIONS} are possible")
        whole = _Piece()
        piece = _Piece()
        for count in range(copies):
            piece = self._sequence(nodes)
            if endless and count == copies - 1:
                self._connect(piece.last, piece.first)
            self._connect(whole.last, piece.first)
            optional = piece.empty or count >= least
            whole = _Piece(
                whole.first | (piece.first if whole.empty else 0),
                piece.last | (whole.last if optional else 0),
                whole.empty and optional,
            )
        return whole

    def _connect(self, ends: int, begins: int) -> None:
        place = 0
        while ends:
            if ends & 1:
                self._follow[place] |= begins
            ends >>= 1
            place += 1

    def _test(self, kind: Any, value: Any) -> Callable[[str], bool]:
        if kind is code.ANY:
            return (lambda _: True) if self._any else (lambda char: char != "\n")
        if kind is code.LITERAL:
            return self._cased(lambda char: ord(char) == value)
        if kind is code.NOT_LITERAL:
            same = self._cased(lambda char: ord(char) == value)
            return lambda char: not same(char)
        if kind is code.IN:
            negated = value[0][0] is code.NEGATE
            tests = [self._member(*item) for item in value[negated:]]
            member = self._cased(lambda char: any(test(char) for test in tests))
            return (lambda char: not member(char)) if negated else member
        raise ValueError(_REFUSED.get(kind, "something in it cannot be done in linear time"))

    def _member(self, kind: Any, value: Any) -> Callable[[str], bool]:
        if kind is code.RANGE:
            low, high = value
            return lambda char: low <= ord(char) <= high
        if kind is code.CATEGORY:
            return _CATEGORIES[value]
        return lambda char: ord(char) == value

    def _cased(self, test: Callable[[str], bool]) -> Callable[[str], bool]:
        if not self._ignore_case:
            return test
        return lambda char: any(test(each) for each in {char, char.lower(), char.upper()} if len(each) == 1)


_REFUSED = {
    code.AT: "`^` and `$` have no place here, because a text comes in pieces; `\\b` only at the beginning or the end",
    code.ASSERT: "looking ahead or behind cannot be done in linear time",
    code.ASSERT_NOT: "looking ahead or behind cannot be done in linear time",
    code.GROUPREF: "backreferences cannot be done in linear time",
    code.GROUPREF_EXISTS: "conditions on groups cannot be done in linear time",
    code.ATOMIC_GROUP: "atomic groups cannot be done in linear time",
    code.POSSESSIVE_REPEAT: "possessive repetitions cannot be done in linear time",
}


def _union(state: int, masks: list[int], remembered: dict[int, int]) -> int:
    known = remembered.get(state)
    if known is not None:
        return known
    if len(remembered) > _MAX_REMEMBERED:
        remembered.clear()
    union, rest, place = 0, state, 0
    while rest:
        if rest & 1:
            union |= masks[place]
        rest >>= 1
        place += 1
    remembered[state] = union
    return union


def _is_boundary(node: Any) -> bool:
    return node[0] is code.AT and node[1] is code.AT_BOUNDARY


def _is_edge(text: str, gap: int) -> bool:
    """Whether a word begins or ends between two characters."""
    before = gap > 0 and (text[gap - 1].isalnum() or text[gap - 1] == "_")
    behind = gap < len(text) and (text[gap].isalnum() or text[gap] == "_")
    return before != behind
