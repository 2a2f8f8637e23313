"""A text that arrives in pieces and leaves guarded, held back no longer than has been allowed.

What has arrived is `before + pending`: the original of what has left (as much as may decide about what follows), and
what waits. A round finds the place up to which no more text can make a difference, lets go of everything in front of
it, and acts on what was found there. If too much waits, the oldest goes although it is not settled.
"""

from __future__ import annotations

from collections import deque

from parkway.policy.guardrails.check import BEFORE, Meter, Spotter
from parkway.policy.guardrails.finding import Finding, mark
from parkway.policy.guardrails.guard import Block, Found, Guard, Guarded, Region, Rule, regions
from parkway.policy.guardrails.json_units import SCALAR, STRUCTURE, JsonUnits

SLICE = 4096
"""Characters of a long text that are looked at together. One that is no longer, and no JSON, is as its checks find it:
what `Guard.passes` is what `apply` finds nothing in."""

_WHOLE_HOLD_TOKENS = 512
_MAX_SWALLOWED = 32_768
"""Characters of one finding that go on behind what was held; more is no key any longer, and passes."""


class Window:
    """One text on its way through.

    Args:
        found: Counts what is found.
        json: The text is JSON, and stays it: marks are put inside of strings, or in quotes in the place of a number.
        hold_tokens: The most that may wait: a piece counts as one token, or as one for four characters.

    Attributes:
        block: Set once the text must not go on; what `feed` returned until then may stay.
    """

    def __init__(self, guard: Guard, found: Found, *, json: bool = False, hold_tokens: int | None = None) -> None:
        self._guard = guard
        self._found = found
        self._hold = guard.hold_tokens if hold_tokens is None else hold_tokens
        self._units = JsonUnits() if json else None
        self._before = ""
        self._pending = ""
        self._written: list[str] = []  # of pending, if it is JSON
        self._places = ""  # of before and pending, if it is JSON
        self._pieces: deque[int] = deque()
        self._tokens = 0
        self._open: tuple[Spotter, str, int] | None = None
        self._meters: list[tuple[Rule, Meter]] = [(rule, check.meter()) for rule, check in guard.judges]
        self.block: Block | None = None

    @property
    def held_tokens(self) -> int:
        """How much waits now."""
        return self._tokens

    def feed(self, piece: str) -> str:
        """Takes the next piece; returns what may leave now."""
        return self._take(piece, final=False)

    def finish(self) -> str:
        """The text is complete; returns the rest of it. It may go on afterwards as a new one."""
        return self._take("", final=True)

    def whole(self, text: str) -> str:
        """Takes a text that is all there is; returns all that may leave."""
        return self._take(text, final=True)

    def _take(self, piece: str, *, final: bool) -> str:
        if self.block is not None:
            return ""
        cut = self._measure(piece, final) if self._meters else None
        if cut is not None:
            piece, final = piece[: cut[0]], True
        if self._units is not None:
            piece, written, places = self._units.feed(piece, final=final)
            self._written += written
            self._places += places
        if piece:
            self._pending += piece
            self._pieces.append(len(piece))
            self._tokens += _tokens(len(piece))
        if self._open is not None:
            self._swallow(final)
        released = self._release(final) if self._pending and self._open is None else ""
        if cut is not None and self.block is None:
            self.block = cut[1]
        return released

    def _measure(self, piece: str, final: bool) -> tuple[int, Block] | None:
        """Where a check of the text as a whole ends it. What it finds is counted once."""
        cut: tuple[int, Block] | None = None
        for entry in list(self._meters):
            rule, meter = entry
            finding = meter.add(piece, final=final)
            if finding is None:
                continue
            self._meters.remove(entry)
            self._found[rule, finding.kind] += 1
            if rule.action == "block" and (cut is None or finding.start < cut[0]):
                cut = (finding.start, Block(rule, finding.kind))
        return cut

    def _release(self, final: bool) -> str:
        text, base = self._before + self._pending, len(self._before)
        settled = len(text) if final else max(base, self._guard.unsettled(text))
        least = base + self._excess()
        forced = least > settled
        settled = max(settled, least)
        if settled <= base:
            return ""
        findings = [(rule, each) for rule, each in self._guard.find(text) if each.end > base and each.start < settled]
        crossing = [(rule, each) for rule, each in findings if each.end > settled]
        if crossing and not forced:
            # A check was wrong about what is settled: what it found waits, too.
            settled = max(base, min(each.start for _, each in crossing))
            findings = [(rule, each) for rule, each in findings if each.end <= settled]
        elif crossing:
            settled = max(each.end for _, each in crossing)
            findings = [(rule, each) for rule, each in self._guard.find(text) if base < each.end <= settled]
            rule, last = max(crossing, key=lambda pair: pair[1].end)
            if last.end == len(text) and rule.action == "redact" and isinstance(rule.check, Spotter):
                self._open = (rule.check, last.kind, 0)
        return self._act(findings, base, settled)

    def _act(self, findings: list[tuple[Rule, Finding]], base: int, settled: int) -> str:
        """Lets go of everything up to `settled`, with what was found in it replaced, or up to what is blocked."""
        blocked = [(rule, each) for rule, each in findings if rule.action == "block"]
        if blocked:
            rule, first = min(blocked, key=lambda pair: (pair[1].start, pair[0].rank))
            self.block = Block(rule, first.kind)
            settled = max(base, first.start)
            findings = [(rule, each) for rule, each in findings if each.start < settled or rule is self.block.rule]
        for rule, each in findings:
            self._found[rule, each.kind] += 1
        to_mark = [(rule, each) for rule, each in findings if rule.action == "redact"]
        out: list[str] = []
        place = base
        for region in regions(to_mark if self._units is None else self._in_json(to_mark)):
            if region.start >= settled:
                break
            out.append(self._original(place, region.start, base))
            out.append(self._replacement(region, base))
            place = max(place, region.end)
        out.append(self._original(place, settled, base))
        self._drop(max(place, settled) - base)
        return "".join(out)

    def _replacement(self, region: Region, base: int) -> str:
        if self._units is None or self._places[region.start] != SCALAR:
            return mark(region.kind)
        return "" if region.start < base else f'"{mark(region.kind)}"'

    def _original(self, start: int, end: int, base: int) -> str:
        if end <= start:
            return ""
        if self._units is None:
            return self._pending[start - base : end - base]
        return "".join(self._written[start - base : end - base])

    def _in_json(self, findings: list[tuple[Rule, Finding]]) -> list[tuple[Rule, Finding]]:
        """Findings cut where JSON's own signs are, and made as wide as the whole number that they touch."""
        places = self._places
        parts: list[tuple[Rule, Finding]] = []
        for rule, finding in findings:
            at = finding.start
            while at < finding.end:
                where, start = places[at], at
                while at < finding.end and places[at] == where:
                    at += 1
                end = at
                if where == SCALAR:
                    while start > 0 and places[start - 1] == SCALAR:
                        start -= 1
                    while end < len(places) and places[end] == SCALAR:
                        end += 1
                if where != STRUCTURE:
                    parts.append((rule, Finding(start, end, finding.kind)))
                at = max(at, end)
        return parts

    def _swallow(self, final: bool) -> None:
        """Leaves out what still belongs to a finding that had to be acted on before it was complete."""
        if self._open is None or not self._pending:
            self._open = None if final else self._open
            return
        check, kind, swallowed = self._open
        count, more = check.rest(kind, self._pending)
        if self._units is not None:
            places = self._places[len(self._before) :]
            structure = places.find(STRUCTURE)
            if 0 <= structure < max(count, 1) or (0 <= structure < len(self._pending) and more):
                count, more = min(structure, len(self._pending)), False
        if final and more:
            count = len(self._pending)
        swallowed += count
        self._drop(count)
        # Whatever follows begins anew: what was left out must not be found again, nor lend its beginning to something.
        self._open = (check, kind, swallowed) if more and not final and swallowed < _MAX_SWALLOWED else None

    def _drop(self, count: int) -> None:
        """`count` characters have left, or are left out."""
        text = self._before + self._pending[:count]
        kept = text[-BEFORE:]
        self._before, self._pending = kept, self._pending[count:]
        if self._units is not None:
            self._written = self._written[count:]
            self._places = self._places[len(text) - len(kept) :]
        while count and self._pieces:
            first = self._pieces[0]
            self._tokens -= _tokens(first)
            if first > count:
                self._pieces[0] = first - count
                self._tokens += _tokens(first - count)
                return
            self._pieces.popleft()
            count -= first

    def _excess(self) -> int:
        """How many characters must leave, so that no more waits than may."""
        excess, tokens = 0, self._tokens
        for size in self._pieces:
            if tokens <= self._hold:
                break
            tokens -= _tokens(size)
            room = self._hold - tokens
            if room > 0:
                return excess + max(0, size - (4 * room + 3))
            excess += size
        return excess


def _tokens(chars: int) -> int:
    """How many tokens a piece of so many characters holds, about; at least one."""
    return max(1, chars // 4)


def apply(guard: Guard, text: str, *, json: bool = False) -> Guarded:
    """A whole text, guarded. Takes time in proportion to its length."""
    result = Guarded(text)
    for rule, check in guard.judges:
        for finding in check.find(text):
            result.found[rule, finding.kind] += 1
            if rule.action == "block" and result.block is None:
                result.block = Block(rule, finding.kind)
    if not guard.spotters:
        return result
    window = Window(_places_only(guard), result.found, json=json, hold_tokens=_WHOLE_HOLD_TOKENS)
    if len(text) <= SLICE:
        changed = window.whole(text)
    else:
        parts = [window.feed(text[at : at + SLICE]) for at in range(0, len(text), SLICE)]
        changed = "".join([*parts, window.finish()])
    result.block = result.block or window.block
    if changed != text:
        result.text = changed
    return result


def _places_only(guard: Guard) -> Guard:
    return Guard([rule for rule, _ in guard.spotters]) if guard.judges or guard.topics else guard
