"""Answers without a model: the best sentences of the passages, word for word, or where to read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from parkway.aggregate.grounding.citation import cited
from parkway.aggregate.grounding.passage import Passage
from parkway.aggregate.grounding.sentence import Span, sentences
from parkway.aggregate.grounding.words import Content, content_of, numbers_in
from parkway.core.grounding import Citation

_RANK_WEIGHT = 0.2
_NEXT_TO_BEST = 0.5
"""What another sentence must reach of the best one's worth."""

_MIN_CHARS, _MAX_CHARS = 20, 600


@dataclass(frozen=True, slots=True)
class Quoted:
    """An answer that is quoted. `citations` have their places in `text`."""

    text: str
    citations: list[Citation]


@dataclass(frozen=True, slots=True)
class _Sentence:
    passage: Passage
    span: Span
    content: Content

    @property
    def text(self) -> str:
        return self.passage.text[slice(*self.span)]


def quote(passages: Sequence[Passage], question: str, most: int) -> Quoted:
    """The at most `most` sentences that say most of what is asked, best first, each in quotation marks and cited."""
    pool = [
        _Sentence(passage, span, content_of(passage.text[slice(*span)]))
        for passage in passages
        for span in sentences(passage.text)
        if _MIN_CHARS <= span[1] - span[0] <= _MAX_CHARS
    ] or [_Sentence(passage, (0, min(len(passage.text), _MAX_CHARS)), content_of("")) for passage in passages[:1]]
    asked = content_of(question)
    wanted = asked.words | numbers_in(asked)
    seen = Counter(word for sentence in pool for word in _said(sentence))
    weight = {word: math.log(1 + len(pool) / (1 + seen[word])) for word in wanted}
    total = sum(weight.values()) or 1.0

    def worth(sentence: _Sentence) -> float:
        matched = sum(weight[word] for word in wanted & _said(sentence)) / total
        rank = 1 - (sentence.passage.number - 1) / len(passages)
        asks = sentence.text.rstrip().endswith(("?", "？"))
        return matched * (_NEXT_TO_BEST if asks else 1.0) + _RANK_WEIGHT * rank

    ordered = sorted(pool, key=lambda sentence: -worth(sentence))
    least = worth(ordered[0]) * _NEXT_TO_BEST if ordered else 0.0
    chosen: list[_Sentence] = []
    for sentence in ordered:
        if len(chosen) == most or worth(sentence) < least:
            break
        if all(sentence.text not in other.text for other in chosen):
            chosen.append(sentence)
    return _told([(sentence.passage, sentence.span, f"“{sentence.text}”") for sentence in chosen])


def link(passages: Sequence[Passage]) -> Quoted:
    """Where to read: each document once, best first."""
    told: list[tuple[Passage, Span, str]] = []
    known = set[tuple[str, str]]()
    for passage in passages:
        document = (passage.hit.collection, passage.hit.document_id)
        if document not in known:
            known.add(document)
            name = passage.hit.title or passage.hit.uri or passage.hit.document_id
            page = "" if passage.hit.page is None else f", page {passage.hit.page}"
            told.append((passage, (0, len(passage.text)), " ".join(name.split()) + page))
    return _told(told)


def _said(sentence: _Sentence) -> frozenset[str]:
    return sentence.content.words | numbers_in(sentence.content)


def _told(parts: Sequence[tuple[Passage, Span, str]]) -> Quoted:
    """Parts one beneath the other, each with its citation."""
    text, citations = "", list[Citation]()
    for passage, source, words in parts:
        start = len(text) + (1 if text else 0)
        text += ("\n" if text else "") + words
        end = len(text)
        text += f" [{passage.number}]"
        citations.append(cited(passage, (start, end), (end + 1, len(text)), source))
    return Quoted(text, citations)
