"""An answer on its way out: sentence by sentence, each with the citations that hold, or marked, or dropped."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from parkway.aggregate.grounding.citation import cited
from parkway.aggregate.grounding.passage import Passage
from parkway.aggregate.grounding.sentence import Span, citations, cited_in, next_end, sentences, without_citations
from parkway.aggregate.grounding.support import Claim, Source, Support, source_of
from parkway.aggregate.grounding.words import content_of
from parkway.core.grounding import Checking, Citation, Unsupported

Similar = Callable[[str, str], Awaitable[bool]]
"""Whether two texts mean the same."""

MARK = " [unsupported]"
"""Behind a sentence that no passage supports."""

_MOST_CITED = 3
_END = re.compile(r"[.!?…。！？｡．।؟۔။។]*[\"'”’»)*_]*(?:\s*\|)?\s*$")
_FENCE = re.compile(r"\s*(`{3,}|~{3,})[\w+#-]*\s*")
_HALF = 0.5


@dataclass(slots=True)
class _Block:
    """Code that has begun.

    Attributes:
        opening: Its first line, until more of it goes out.
        carried: What it rests on, by the passages' numbers: how, and which line of the answer.
    """

    fence: str
    opening: str
    unsupported: bool = False
    carried: dict[int, tuple[Passage, Support, Span]] = field(default_factory=dict[int, tuple[Passage, Support, Span]])


class Checker:
    """One answer: what is fed comes back when it is known to hold.

    Args:
        question: Names in it need no source.
        check: What becomes of what no passage supports. With `off` everything comes back at once.
        min_support: The least share of a sentence's words that stand in its passage.
        similar: Asked where numbers and names are right and too few words are the same.

    Attributes:
        citations: Of what came back so far.
        unsupported: Sentences that were marked.
        dropped: How many were left out.
        text: What came back so far.
    """

    def __init__(
        self,
        passages: Sequence[Passage],
        question: str,
        check: Checking,
        min_support: float,
        unknown: str,
        similar: Similar | None = None,
    ) -> None:
        self.citations: list[Citation] = []
        self.unsupported: list[Unsupported] = []
        self.dropped = 0
        self._passages = {passage.number: passage for passage in passages}
        self._sources: dict[int, Source] = {}
        self._given = content_of(question)
        self._check: Checking = check
        self._min_support = min_support
        self._unknown = unknown
        self._similar = similar
        self._pending = ""
        self._block: _Block | None = None
        self._out: list[str] = []
        self._length = 0

    @property
    def text(self) -> str:
        return "".join(self._out)

    @property
    def answered(self) -> bool:
        """Whether there is an answer, once it is finished."""
        return self.text.strip() not in ("", self._unknown)

    async def feed(self, piece: str) -> str:
        """Takes more of the answer; returns what may go out now."""
        if self._check == "off":
            return self._let_go(piece)
        self._pending += piece
        return await self._settle(final=False)

    async def finish(self, *, silent: bool = False) -> str:
        """The answer is complete: returns the rest of it; where nothing of it holds, that there is none.

        Args:
            silent: It may also say nothing.
        """
        rest = ""
        if self._check == "off":
            self._bind_unchecked()
        else:
            rest = await self._settle(final=True)
            if self._block is not None:
                rest += self._end_of(self._block, ("" if self.text.endswith("\n") else "\n") + self._block.fence)
        return rest if silent or self.text.strip() else rest + self._let_go(self._unknown)

    async def _settle(self, *, final: bool) -> str:
        out: list[str] = []
        if not self._sources:
            self._sources = await asyncio.to_thread(_sources_of, list(self._passages.values()))
        while self._pending and (end := next_end(self._pending, final=final)):
            sentence, self._pending = self._pending[:end], self._pending[end:]
            out.append(await self._sentence(sentence))
            await asyncio.sleep(0)  # a sentence takes some 100 microseconds; others get their turn
        return "".join(out)

    async def _sentence(self, sentence: str) -> str:
        """What becomes of one sentence."""
        if not sentence.strip():
            return self._let_go(sentence)
        if (fence := _FENCE.fullmatch(sentence)) is not None:
            return self._pass_fence(sentence, fence.group(1))
        if self._block is not None:
            return await self._code(sentence, self._block)
        bare = without_citations(sentence).replace("![", "[")  # nothing is fetched by being looked at
        if bare.strip() == self._unknown:
            return self._let_go(bare)
        claim = Claim(bare, self._given)
        if claim.empty:
            return self._let_go(bare)
        carried = await self._carried(claim, bare.strip(), cited_in(sentence))
        if carried:
            return self._cite(bare, carried)
        if self._leads(bare, claim):
            return self._let_go(bare)
        if self._check == "drop":
            self.dropped += 1
            return ""
        body = bare.rstrip()
        tail = bare[len(body) :]
        if body.endswith("|"):  # of a row of a table: with a cell more it would be none
            body, tail = body[:-1].rstrip(), f" |{tail}"
        self._note_unsupported(body)
        return self._let_go(body + MARK + tail)

    def _pass_fence(self, line: str, fence: str) -> str:
        """Code begins or ends. Within it nothing is put in: what it rests on stands behind it."""
        block = self._block
        if block is None:
            self._block = _Block(fence, line)
            return ""
        if not fence.startswith(block.fence):
            return self._let_go(line)
        return self._end_of(block, line)

    async def _code(self, line: str, block: _Block) -> str:
        """What becomes of a line of code, or of a part of one."""
        claim = Claim(line, self._given)
        carried = [] if claim.empty else await self._carried(claim, line.strip(), [])
        if not claim.empty and not carried:
            if self._check == "drop":
                self.dropped += 1
                return ""
            block.unsupported = True
        begun, block.opening = self._let_go(block.opening), ""
        if not claim.empty and not carried:
            self._note_unsupported(line)
        for passage, support in carried:
            block.carried.setdefault(passage.number, (passage, support, self._span_of(line)))
        return begun + self._let_go(line)

    def _end_of(self, block: _Block, closing: str) -> str:
        """The line that closes it, and what it rests on; nothing where nothing of it went out."""
        self._block = None
        if block.opening:
            return ""
        line = closing.rstrip("\n")
        told, markers = self._let_go(line + "\n"), ""
        for passage, support, answer in block.carried.values():
            place = (self._length + len(markers), self._length + len(markers) + len(f"[{passage.number}]"))
            markers += f"[{passage.number}]"
            self.citations.append(cited(passage, answer, place, support.source, support.share))
        said = (markers + (MARK if block.unsupported else "")).strip()
        after = closing[len(line) :] or "\n"
        return told + self._let_go(said + after if said else after[1:])

    def _note_unsupported(self, text: str) -> None:
        start, end = self._span_of(text)
        self.unsupported.append(Unsupported(answer_start=start, answer_end=end))

    def _span_of(self, text: str) -> Span:
        """Of what is about to go out, without white space around."""
        return self._length + len(text) - len(text.lstrip()), self._length + len(text.rstrip())

    async def _carried(self, claim: Claim, bare: str, numbers: list[int]) -> list[tuple[Passage, Support]]:
        """The passages that carry it: of those that it cites; else of all others, the best one."""
        asked = [number for number in numbers if number in self._passages]
        found = [(self._passages[number], self._sources[number].supports(claim)) for number in asked]
        good = [each for each in found if self._holds(each[1])]
        if good:
            return good[:_MOST_CITED]
        if len(found) > 1 and self._hold_together(claim, [support for _, support in found]):
            return found[:_MOST_CITED]
        others = [
            (passage, self._sources[number].supports(claim))
            for number, passage in self._passages.items()
            if number not in asked
        ]
        others.sort(key=lambda each: -each[1].share)
        if others and self._holds(others[0][1]):
            return others[:1]
        if self._similar is not None:
            for passage, support in sorted(found, key=lambda each: -each[1].share) + others[:1]:
                if support.share >= self._min_support * _HALF and not support.contradicted:
                    start, end = support.source
                    return [(passage, support)] if await self._similar(bare, passage.text[start:end]) else []
        return []

    def _holds(self, support: Support) -> bool:
        return support.share > 0 and support.share >= self._min_support and not support.contradicted

    def _hold_together(self, claim: Claim, found: list[Support]) -> bool:
        """Whether several passages carry together what none of them carries alone."""
        if any(support.share == 0 or support.contradicted for support in found):
            return False
        matched = frozenset[str]().union(*(support.matched for support in found))
        return len(matched) >= self._min_support * len(claim.content.words)

    def _leads(self, bare: str, claim: Claim) -> bool:
        """Whether it says nothing by itself: it leads over to a list, in words of the question or of a passage."""
        content = claim.content
        if not bare.rstrip().endswith(":") or content.numbers or claim.names:
            return False
        return len(content.words - self._given.words) <= 1

    def _cite(self, bare: str, carried: list[tuple[Passage, Support]]) -> str:
        """The sentence with its citations in front of the mark that ends it."""
        end = _END.search(bare)
        at = end.start() if end is not None else len(bare.rstrip())
        begins, _ = self._span_of(bare)
        ends = self._length + at
        markers = ""
        for passage, support in carried:
            marker = f"{'' if markers else ' '}[{passage.number}]"
            first = ends + len(markers) + len(marker) - len(marker.lstrip())
            markers += marker
            place = (first, ends + len(markers))
            self.citations.append(cited(passage, (begins, ends), place, support.source, support.share))
        return self._let_go(bare[:at] + markers + bare[at:])

    def _bind_unchecked(self) -> None:
        """Citations of an answer that nobody checks, as they stand in it."""
        text = self.text
        for start, end in sentences(text):
            for match in citations(text[start:end]):
                marker = (start + match.end() - len(match.group().lstrip()), start + match.end())
                for number in cited_in(match.group()):
                    if (passage := self._passages.get(number)) is not None:
                        answer = (start, max(start, start + match.start()))
                        self.citations.append(cited(passage, answer, marker, (0, len(passage.text))))

    def _let_go(self, text: str) -> str:
        self._out.append(text)
        self._length += len(text)
        return text


def _sources_of(passages: list[Passage]) -> dict[int, Source]:
    return {each.number: source_of(each.text, (each.hit.title, *each.hit.headings)) for each in passages}
