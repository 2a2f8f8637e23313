"""How well a collection is searched: on questions whose answers are known, one configuration beside another.

A gold file has one question on each line (JSONL):

    {"query": "How long is a key valid?", "relevant": ["docs/keys.md"], "answer": "thirty days"}
    {"query": "Who pays?", "relevant": [{"document": "terms.pdf", "start": 1200, "end": 1415, "grade": 2}]}
    {"query": "What is the capital of Mars?", "relevant": []}

A document is named by its id, its URI, or the end of its URI from a `/` on. With `start` and `end`, in characters of
its text, only a passage that has some of them is right. `grade` says how well it answers; 1 where it is missing. A
question without anything relevant is one that the collection cannot answer: it tells whether confidence is low then.
`answer` has the words that an answer must have, or several spellings of them; only answers are measured by it.
"""

from __future__ import annotations

import math
from codecs import BOM_UTF8
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from parkway.core.errors import ConfigurationError
from parkway.core.knowledge import Found, Hit
from parkway.retrieval import beir
from parkway.retrieval.document import Passage
from parkway.retrieval.ranking.fusion import Numbers

MAX_QUESTIONS = 100_000
MAX_FILE_BYTES = 256 << 20
RESAMPLES = 2000


class Relevant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What answers a question: a document, or a span of it."""

    document: Annotated[str, msgspec.Meta(min_length=1)]
    start: int | None = None
    end: int | None = None
    grade: Annotated[float, msgspec.Meta(gt=0, le=100)] = 1.0

    def __post_init__(self) -> None:
        if (self.start is None) != (self.end is None) or (self.start or 0) < 0:
            raise ValueError("a span needs `start` and `end`, from 0 on")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError("`start` must be less than `end`")

    def names(self, document_id: str, uri: str) -> bool:
        """Whether the document is meant."""
        return self.document in (document_id, uri) or uri.endswith(f"/{self.document}")

    def is_in(self, hit: Hit | Passage) -> bool:
        """Whether it is of this document and has some of the span."""
        if not self.names(hit.document_id, hit.uri):
            return False
        return self.start is None or self.end is None or (hit.start < self.end and self.start < hit.end)


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of a gold file."""

    query: Annotated[str, msgspec.Meta(min_length=1, max_length=8192)]
    relevant: list[str | Relevant] = []
    answer: str | list[str] = []

    @property
    def answers(self) -> list[str]:
        return [self.answer] if isinstance(self.answer, str) else self.answer

    @property
    def gold(self) -> list[Relevant]:
        return [Relevant(each) if isinstance(each, str) else each for each in self.relevant]


Ask = Callable[[str], Found]
"""Searches; as many hits as `DEPTH` documents need."""

DEPTH = 100
FIRST = 10


def load(path: Path, split: str = "test") -> list[Question]:
    """Reads a gold file, or a folder as BEIR lays it out.

    Args:
        split: Of a folder: which of its judgements.

    Raises:
        ConfigurationError: It cannot be read, or a line is not as described; the message names the line.
    """
    if path.is_dir():
        return _of_folder(path, split)
    decoder = msgspec.json.Decoder(Question)
    questions: list[Question] = []
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigurationError(f"{path}: a gold file has at most {MAX_FILE_BYTES >> 20} MiB")
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    questions.append(decoder.decode(line.removeprefix(BOM_UTF8)))  # which some editors write
                except msgspec.MsgspecError as error:
                    raise ConfigurationError(
                        f'{path}:{number}: {error}; expected {{"query": "...", "relevant": ["document", ...]}}'
                    ) from error
                if len(questions) > MAX_QUESTIONS:
                    raise ConfigurationError(f"{path}: a gold file has at most {MAX_QUESTIONS:,} questions")
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    if not questions:
        raise ConfigurationError(f"{path}: there are no questions in it")
    return questions


def _of_folder(folder: Path, split: str) -> list[Question]:
    """Of `queries.jsonl` those in `qrels/SPLIT.tsv`; with columns `start` and `end` spans are what answers them."""
    texts = beir.queries(folder)
    path = folder / "qrels" / f"{split}.tsv"
    if not path.exists():
        splits = ", ".join(sorted(each.stem for each in path.parent.glob("*.tsv")))
        choose = f"choose among {splits} by --split" if splits else "it says which documents answer which queries"
        raise ConfigurationError(f"{path}: no collection as BEIR lays it out: there is no such file; {choose}")
    gold: dict[str, list[str | Relevant]] = {}
    for each in beir.judgements(path, texts):
        try:
            relevant = Relevant(each.document, each.start, each.end, each.grade)
        except ValueError as error:
            raise ConfigurationError(f"{path}: of query {each.query[:64]!r}: {error}") from error
        gold.setdefault(each.query, []).append(relevant)
    return [Question(texts[query], answers) for query, answers in gold.items()]


@dataclass(frozen=True, slots=True, eq=False)
class Results:
    """What was measured of one configuration; float64 [questions], in their order.

    Attributes:
        measures: `nDCG@10`, `MRR@10` and `Recall@K` of the questions that can be answered; NaN of the others.
        confidence: Of all.
        took_ms: By stage, of the searches that were made; of all, where each was told again.
        told_again: How many answers were kept from searches before.
    """

    measures: dict[str, Numbers]
    confidence: Numbers
    took_ms: dict[str, Numbers]
    told_again: int = 0


def evaluate(questions: Sequence[Question], ask: Ask) -> Results:
    """Searches for each question, and compares with what is known."""
    rows: list[dict[str, float]] = []
    times: list[dict[str, float]] = []
    kept: list[dict[str, float]] = []
    confidence: list[float] = []
    for question in questions:
        found = ask(question.query)
        rows.append(measures(question.gold, found.hits))
        (kept if found.cached else times).append(found.took_ms)
        confidence.append(found.confidence)
    times = times or kept
    stages = sorted({stage for each in times for stage in each})
    return Results(
        measures={name: np.array([row[name] for row in rows]) for name in rows[0]},
        confidence=np.array(confidence),
        took_ms={stage: np.array([each.get(stage, 0.0) for each in times]) for stage in stages},
        told_again=len(kept),
    )


def measures(gold: Sequence[Relevant], hits: Sequence[Hit]) -> dict[str, float]:
    """Of one question.

    Where no spans are asked for, documents are what is counted: each stands where its first passage stands. nDCG has
    the grade as gain. Source: Jarvelin and Kekalainen, "Cumulated gain-based evaluation of IR techniques", 2002.
    """
    names = ("nDCG@10", "MRR@10", "Recall@10", "Recall@100")
    if not gold:
        return dict.fromkeys(names, math.nan)
    if all(each.start is None for each in gold):
        documents: dict[str, Hit] = {}
        for hit in hits:
            documents.setdefault(hit.document_id, hit)
        hits = list(documents.values())
    places: list[int | None] = [next((at for at, hit in enumerate(hits) if each.is_in(hit)), None) for each in gold]
    # Several that stand in one hit are one place, also of the best order: the hit has the best of their grades.
    gains: dict[int, float] = {}
    missing: list[float] = []
    for place, each in zip(places, gold, strict=True):
        if place is None:
            missing.append(each.grade)
        else:
            gains[place] = max(gains.get(place, 0.0), each.grade)
    ideal = sorted((*gains.values(), *missing), reverse=True)[:FIRST]
    best = sum(gain / math.log2(at + 2) for at, gain in enumerate(ideal))
    first = min(gains, default=FIRST)
    return {
        "nDCG@10": sum(gain / math.log2(at + 2) for at, gain in gains.items() if at < FIRST) / best,
        "MRR@10": 1 / (first + 1) if first < FIRST else 0.0,
        "Recall@10": sum(place is not None and place < FIRST for place in places) / len(gold),
        "Recall@100": sum(place is not None and place < DEPTH for place in places) / len(gold),
    }


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, and between what it lies in 95 of 100 samples of as many questions."""

    mean: float
    low: float
    high: float


def interval(values: Numbers, seed: int = 0) -> Interval:
    """By bootstrap over the questions that can be answered.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return Interval(math.nan, math.nan, math.nan)
    random = np.random.default_rng(seed)
    means = np.array([known[random.integers(0, len(known), len(known))].mean() for _ in range(RESAMPLES)])
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(known.mean()), float(low), float(high))


def difference(one: Results, other: Results, measure: str) -> Interval:
    """How much better `other` is, question by question: a difference whose interval has 0 in it may be chance."""
    return interval(other.measures[measure] - one.measures[measure])


def told(change: Interval) -> str:
    """A difference with its interval, in brackets."""
    return f"{change.mean:+.3f} ({change.low:+.3f} to {change.high:+.3f})"


def table(results: dict[str, Results]) -> str:
    """Quality of each configuration, and of all but the first how it differs; as Markdown."""
    names = list(next(iter(results.values())).measures)
    lines = [f"| | {' | '.join(names)} | p50 ms | p95 ms |", f"|---|{'---|' * (len(names) + 2)}"]
    base: Results | None = None
    for title, each in results.items():
        cells: list[str] = []
        for name in names:
            found = interval(each.measures[name])
            cell = "-" if math.isnan(found.mean) else f"{found.mean:.3f} ({found.low:.3f} to {found.high:.3f})"
            if base is not None:
                cell += f", {told(difference(base, each, name))}"
            cells.append(cell)
        total = each.took_ms.get("total")
        cells += ["", ""] if total is None else [f"{value:.1f}" for value in np.percentile(total, [50, 95])]
        lines.append(f"| {title} | {' | '.join(cells)} |")
        base = base or each
    return "\n".join(lines)


def stages(results: Results) -> str:
    """How long each stage takes; as Markdown."""
    lines = ["| stage | p50 ms | p95 ms | p99 ms |", "|---|---|---|---|"]
    for stage, times in results.took_ms.items():
        cells = " | ".join(f"{value:.2f}" for value in np.percentile(times, [50, 95, 99]))
        lines.append(f"| {stage} | {cells} |")
    if results.told_again:
        asked = len(results.confidence)
        of = "what is kept" if results.told_again == asked else "the others"
        lines += ["", f"{results.told_again} of {asked} answers were kept from searches before; times are of {of}."]
    return "\n".join(lines)
