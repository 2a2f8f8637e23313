"""How good chunks are: how much of what answers a question is in what is found for it, within so many tokens.

The measure of Smith and Troynikov, "Evaluating Chunking Strategies for Retrieval" (Chroma, 2024), on characters, with
a budget of tokens in place of a number of chunks: many small chunks and few large ones cost a model the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from parkway.core.errors import ConfigurationError, Unreadable
from parkway.retrieval import beir, evaluation
from parkway.retrieval.chunking.chunker import Chunker
from parkway.retrieval.chunking.encoder import Encoder
from parkway.retrieval.document import Chunk, Parsed, searched_text

BUDGET_TOKENS = 1500

Span = tuple[int, int]
Spans = dict[str, list[Span]]
"""By document."""


class Question(NamedTuple):
    """What is asked, and where the answer stands."""

    text: str
    gold: Spans


@dataclass(frozen=True, slots=True)
class Gold:
    """A judged collection. Spans are of the text of the documents as they were parsed."""

    documents: dict[str, Parsed]
    questions: list[Question]


class Placed(NamedTuple):
    """A chunk of a document."""

    document_id: str
    chunk: Chunk
    searched: str


Search = Callable[[Sequence[str]], Sequence[Sequence[int]]]
"""For each question the numbers of chunks that are found, the best first."""
MakeSearch = Callable[[Sequence[str]], Search]
"""A search in what is searched of chunks."""


@dataclass(frozen=True, slots=True)
class Quality:
    """What was measured, as means over questions.

    Attributes:
        chunks, mean_tokens, longest_tokens: How many there are, and how long, as the encoder counts them.
        recall: The share of the gold characters that was found.
        precision: The share of the found characters that is gold.
        iou: Intersection over union of both.
    """

    chunks: int
    mean_tokens: float
    longest_tokens: int
    recall: float
    precision: float
    iou: float


def load(folder: Path, parse: Callable[[str], Parsed]) -> Gold:
    """Reads `corpus.jsonl`, `queries.jsonl` and `qrels.tsv` as BEIR has them, with columns `start` and `end`.

    Args:
        parse: Finds a text's blocks. Spans are of the text as it is: it must not change it.

    Raises:
        ConfigurationError: A file is missing, or not laid out so, or does not fit the documents.
    """
    documents = {name: _unchanged(name, each.text, parse) for name, each in beir.documents(folder).items()}
    texts = beir.queries(folder)
    path = folder / "qrels.tsv"
    gold: dict[str, Spans] = {}
    for each in beir.judgements(path, texts):
        if each.start is None or each.end is None:
            raise ConfigurationError(f"{path}: chunkers need spans: the columns start and end, in characters")
        gold.setdefault(each.query, {}).setdefault(each.document, []).append((each.start, each.end))
    return _fitting(path, Gold(documents, [Question(texts[query], spans) for query, spans in gold.items()]))


def load_file(path: Path, parse: Callable[[Path], Parsed]) -> Gold:
    """Reads a gold file as `retrieval/evaluation.py` has it, and the documents that it names.

    They are files, named from where the gold file lies, or from the working directory. Questions without spans are left
    out; how much of their answer is found cannot be said.

    Raises:
        ConfigurationError: The file cannot be read, has no spans, names no file or one that cannot be parsed, or has
            spans beyond the text.
    """
    questions: list[Question] = []
    for question in evaluation.load(path):
        spans: Spans = {}
        for each in question.gold:
            if each.start is not None and each.end is not None:
                spans.setdefault(each.document, []).append((each.start, each.end))
        if spans:
            questions.append(Question(question.query, spans))
    if not questions:
        raise ConfigurationError(f"{path}: no question has a `relevant` with `start` and `end`; chunkers need spans")
    names = sorted({name for question in questions for name in question.gold})
    return _fitting(path, Gold({name: _parsed(path, name, parse) for name in names}, questions))


def _parsed(gold: Path, name: str, parse: Callable[[Path], Parsed]) -> Parsed:
    try:
        return parse(_file(gold, name))
    except Unreadable as error:
        raise ConfigurationError(f"{gold}: {name} {error.message}") from error


def _fitting(path: Path, gold: Gold) -> Gold:
    """Sees that spans are of documents that are there, and of text that these have. Raises: ConfigurationError."""
    for question in gold.questions:
        for name, spans in question.gold.items():
            if name not in gold.documents:
                raise ConfigurationError(f"{path}: {question.text[:80]!r} names a document that is not there: {name!r}")
            length = len(gold.documents[name].text)
            if beyond := [span for span in spans if not 0 <= span[0] < min(span[1], length)]:
                raise ConfigurationError(
                    f"{path}: {question.text[:80]!r} names {beyond[0][0]} to {beyond[0][1]} in {name!r}, whose text "
                    f"has {length} characters; spans are counted in characters of the text as it is read"
                )
    return gold


def _file(gold: Path, name: str) -> Path:
    for place in (gold.parent / name, Path(name)):
        if place.is_file():
            return place
    raise ConfigurationError(f"{gold}: there is no file {name}, neither beside it nor in the working directory")


def evaluate(
    gold: Gold,
    chunker: Chunker,
    encoder: Encoder,
    make_search: MakeSearch,
    budget_tokens: int = BUDGET_TOKENS,
) -> Quality:
    """Cuts the documents, searches for each question, and compares.

    Chunks are taken as they are found, until the next one would be over the budget; its tokens are those of the text,
    without headings and what the encoder puts around.
    """
    placed = [
        Placed(name, chunk, searched_text(chunk.headings, parsed.text[chunk.start : chunk.end]))
        for name, parsed in gold.documents.items()
        for chunk in chunker(parsed)
    ]
    search = make_search([each.searched for each in placed])
    counts = encoder.count([_text(gold, each) for each in placed])
    tokens = [count - encoder.around for count in counts]
    found = search([question.text for question in gold.questions])
    scores = [
        _score(question.gold, _within(ranked, placed, tokens, budget_tokens))
        for question, ranked in zip(gold.questions, found, strict=True)
    ]
    recall, precision, iou = (sum(column) / len(scores) for column in zip(*scores, strict=True))
    longest = max(each.chunk.tokens for each in placed)
    return Quality(len(placed), sum(tokens) / len(tokens), longest, recall, precision, iou)


def table(results: dict[str, Quality]) -> str:
    """As Markdown, the best first."""
    lines = [
        "| chunker | chunks | tokens, mean | longest | recall | precision | IoU |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, each in sorted(results.items(), key=lambda item: -item[1].recall):
        lines.append(
            f"| {name} | {each.chunks:,} | {each.mean_tokens:.0f} | {each.longest_tokens}"
            f" | {each.recall:.3f} | {each.precision:.3f} | {each.iou:.3f} |"
        )
    return "\n".join(lines)


def _text(gold: Gold, each: Placed) -> str:
    return gold.documents[each.document_id].text[each.chunk.start : each.chunk.end]


def _unchanged(name: str, text: str, parse: Callable[[str], Parsed]) -> Parsed:
    parsed = parse(text)
    if parsed.text != text:
        raise ConfigurationError(f"document {name} was changed by reading it; gold spans are of its own text")
    return parsed


def _within(ranked: Iterable[int], placed: Sequence[Placed], tokens: Sequence[int], budget: int) -> Spans:
    taken: Spans = {}
    for number in ranked:
        budget -= tokens[number]
        if budget < 0:
            break
        chunk = placed[number].chunk
        taken.setdefault(placed[number].document_id, []).append((chunk.start, chunk.end))
    return taken


def _score(gold: Spans, found: Spans) -> tuple[float, float, float]:
    both = sum(_length(_common(_merged(spans), _merged(found.get(name, [])))) for name, spans in gold.items())
    wanted = sum(_length(_merged(spans)) for spans in gold.values())
    taken = sum(_length(_merged(spans)) for spans in found.values())
    return both / max(1, wanted), both / max(1, taken), both / max(1, wanted + taken - both)


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _common(one: Sequence[Span], other: Sequence[Span]) -> list[Span]:
    pairs = ((max(a, c), min(b, d)) for a, b in one for c, d in other)
    return [(start, end) for start, end in pairs if start < end]


def _length(spans: Iterable[Span]) -> int:
    return sum(end - start for start, end in spans)
