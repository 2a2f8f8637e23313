"""How good the answers are that no model writes: which words of the documents they quote, and which they should.

On the judged spans of Smith and Troynikov (Chroma, 2024): 5 documents, 472 questions. The documents are cut, embedded,
indexed and searched as Parkway does by default, all of them at once; the answer is that of the tier `extractive`, by
the function that the gateway calls. What it quotes is compared with the gold spans, character by character, beside
what simpler choices quote from the same passages, and the best that any choice of whole sentences could.

How sentences are chosen was decided on the documents of `CHOICE`. The two others, those with the most questions, are
for the last measurement, never for a choice. `--vectors FILE` keeps vectors: then it takes a minute of one core.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bench.chunkers import READS, Vectors
from bench.retrieval_quality import ANYBODY, BUDGET_MS
from parkway.aggregate.grounding.config import GroundingConfig
from parkway.aggregate.grounding.excerpt import excerpts
from parkway.aggregate.grounding.passage import Passage, select
from parkway.aggregate.grounding.quotation import quote
from parkway.aggregate.grounding.words import content_of, numbers_in
from parkway.core.knowledge import Search
from parkway.engine.builtin import PARK_EMBED
from parkway.launch.chunker_comparison import judged_spans
from parkway.launch.encoding import Encoding
from parkway.retrieval import judged
from parkway.retrieval.chunking.evaluation import Gold, Question, Span, Spans
from parkway.retrieval.evaluation import interval
from parkway.retrieval.judged import Judged
from parkway.retrieval.query_vectors import QueryVectors
from parkway.retrieval.ranking.fusion import Numbers
from parkway.retrieval.ranking.ranker import Ranker
from parkway.retrieval.search import Searcher

CHOICE = ("chatlogs", "finance", "state_of_the_union")
"""The documents that choices may look at; `pubmed` and `wikitexts` have more questions than any of them."""

_K1, _B = 1.5, 0.75
_EMBEDDED = 20

Choose = Callable[["Asked"], Spans]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with what was found for it.

    Attributes:
        passages: As the gateway takes them; best first.
        vectors: Of texts.
    """

    question: Question
    passages: Sequence[Passage]
    confidence: float
    vectors: Vectors

    @property
    def parts(self) -> list[tuple[Passage, Span]]:
        """What can be quoted of all passages: sentences, items, tables and code."""
        return [(passage, (each.start, each.end)) for passage in self.passages for each in excerpts(passage.text)]


def answer(asked: Asked) -> Spans:
    """What the gateway quotes."""
    said = quote(asked.passages, asked.question.text, GroundingConfig().sentences)
    spans: Spans = {}
    for citation in said.citations:
        assert citation.start is not None
        assert citation.end is not None
        spans.setdefault(citation.document_id, []).append((citation.start, citation.end))
    return spans


def first_passage(asked: Asked) -> Spans:
    return _spans([(each, (0, len(each.text))) for each in asked.passages[:1]])


def first_sentence(asked: Asked) -> Spans:
    return _spans(asked.parts[:1])


def nearest_sentence(asked: Asked) -> Spans:
    """That whose vector is most like the question's."""
    texts = [passage.text[slice(*span)] for passage, span in asked.parts]
    vectors = asked.vectors.embed([asked.question.text, *texts])
    return _spans([asked.parts[int(np.argmax(vectors[1:] @ vectors[0]))]])


def sentence_by_words(asked: Asked) -> Spans:
    """That with the highest BM25, of the sentences that were found."""
    words = [_words(passage.text[slice(*span)]) for passage, span in asked.parts]
    seen = Counter(word for each in words for word in each)
    mean = sum(each.total() for each in words) / len(words)

    def bm25(said: Counter[str]) -> float:
        normal = _K1 * (1 - _B + _B * said.total() / mean)
        return sum(
            math.log(1 + (len(words) - seen[word] + 0.5) / (seen[word] + 0.5)) * said[word] * (_K1 + 1)
            / (said[word] + normal)
            for word in _words(asked.question.text)
        )  # fmt: skip

    return _spans([max(zip(asked.parts, words, strict=True), key=lambda part: bm25(part[1]))[0]])


def best_sentences(asked: Asked) -> Spans:
    """Those that make the highest F1 together: by share of gold, as long as the next one makes it higher."""
    gold = asked.question.gold
    wanted = sum(end - start for spans in gold.values() for start, end in spans)
    parts = [(_common(_spans([part]), gold), part) for part in asked.parts]
    parts.sort(key=lambda each: -each[0] / (each[1][1][1] - each[1][1][0]))
    both = taken = 0
    chosen: list[tuple[Passage, Span]] = []
    for common, part in parts:
        length = part[1][1] - part[1][0]
        if common * (wanted + taken) <= both * length:
            break
        both, taken = both + common, taken + length
        chosen.append(part)
    return _spans(chosen)


CHOICES: dict[str, Choose] = {
    "extractive answer": answer,
    "the first passage": first_passage,
    "its first sentence": first_sentence,
    "the sentence with the nearest vector": nearest_sentence,
    "the sentence with the highest BM25": sentence_by_words,
    "the best sentences there are": best_sentences,
}


def measures(asked: Asked, quoted: Spans, texts: dict[str, str]) -> tuple[float, float, float, float, float]:
    """Whether any of the gold is quoted, recall, precision and F1 of characters, words of the answer."""
    gold = asked.question.gold
    wanted, taken = (sum(end - start for some in each.values() for start, end in some) for each in (gold, quoted))
    both = _common(quoted, gold)
    words = sum(len(texts[name][start:end].split()) for name, spans in quoted.items() for start, end in spans)
    return float(both > 0), both / wanted, both / max(1, taken), 2 * both / max(1, wanted + taken), float(words)


def table(results: dict[str, Numbers]) -> str:
    """As Markdown.

    Args:
        results: float64 [questions, measures], by name.
    """
    lines = ["| | hit | recall | precision | F1 | words, median |", "|---|---|---|---|---|---|"]
    for name, rows in results.items():
        found = [interval(column) for column in rows.T[:4]]
        cells = [f"{each.mean:.3f} ({each.low:.3f} to {each.high:.3f})" for each in found]
        lines.append(f"| {name} | {' | '.join(cells)} | {np.median(rows[:, 4]):.0f} |")
    return "\n".join(lines)


def _spans(parts: Sequence[tuple[Passage, Span]]) -> Spans:
    spans: Spans = {}
    for passage, (start, end) in parts:
        hit = passage.hit
        spans.setdefault(hit.document_id, []).append((hit.start + start, hit.start + end))
    return spans


def _common(some: Spans, others: Spans) -> int:
    return sum(
        max(0, min(end, stop) - max(start, begin))
        for name, spans in some.items()
        for start, end in spans
        for begin, stop in others.get(name, [])
    )


def _words(text: str) -> Counter[str]:
    content = content_of(text)
    return Counter([*content.words, *numbers_in(content)])


def looked_up(gold: Gold, questions: Sequence[Question], vectors: Vectors) -> list[Asked]:
    """Searches for each question as the gateway does."""
    config = GroundingConfig()
    queries = QueryVectors(vectors.embed, len(questions))
    asked: list[Asked] = []
    with tempfile.TemporaryDirectory() as directory:
        index = judged.indexed(
            Judged(gold.documents, []), Path(directory) / "index", vectors.encoder(READS), vectors.embed
        )
        searcher = Searcher("judged", [index], queries, Ranker.load("english"))
        for question in questions:
            search = Search(query=question.text, limit=config.hits, budget_ms=BUDGET_MS)
            found = searcher.search(search, ANYBODY)
            shown = [(hit, hit.text) for hit in found.hits]
            passages = select(shown, config.context_tokens, config.max_passages)
            asked.append(Asked(question, passages, found.confidence, vectors))
        index.close()
    vectors.embed([passage.text[slice(*span)] for each in asked for passage, span in each.parts])
    return asked


def tell(title: str, asked: Sequence[Asked], texts: dict[str, str]) -> None:
    """Prints the table of some questions."""
    rows: dict[str, list[tuple[float, ...]]] = {}
    took: list[float] = []
    for each in asked:
        for name, choose in CHOICES.items():
            began = time.process_time()
            quoted = choose(each)
            if choose is answer:
                took.append((time.process_time() - began) * 1000)
            rows.setdefault(name, []).append(measures(each, quoted, texts))
    unsure = sum(each.confidence < GroundingConfig().min_confidence for each in asked)
    print(f"\n{title}: {len(asked)} questions, {unsure} of them below `min_confidence`\n")
    print(table({name: np.array(each) for name, each in rows.items()}))
    p50, p95 = np.percentile(took, [50, 95])
    print(f"\nAn answer takes {p50:.1f} ms of the processor (p50), {p95:.1f} ms (p95).")


def embedding_ms(asked: Sequence[Asked]) -> float:
    """What it takes of the processor to embed all that could be quoted for a question; median."""
    encoding = Encoding(PARK_EMBED)
    took: list[float] = []
    for each in asked:
        texts = [passage.text[slice(*span)] for passage, span in each.parts]
        began = time.process_time()
        encoding.embed(texts)
        took.append((time.process_time() - began) * 1000)
    encoding.close()
    return float(np.median(took[1:]))


def main() -> None:
    """Prints the tables."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True, help="chunking-eval: corpus, queries and qrels.tsv")
    arguments.add_argument("--vectors", default=":memory:", help="a file that keeps vectors for the next time")
    arguments.add_argument("--part", choices=["choice", "report", "both"], default="both")
    arguments.add_argument("--questions", type=int, default=10_000, help="about so many of each part")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    gold = judged_spans(given.data)
    texts = {name: parsed.text for name, parsed in gold.documents.items()}
    parts: dict[str, list[Question]] = {"choice": [], "report": []}
    for question in gold.questions:
        parts["choice" if set(question.gold) <= set(CHOICE) else "report"].append(question)
    wanted = {
        name: some[:: max(1, len(some) // given.questions)]
        for name, some in parts.items()
        if given.part in (name, "both")
    }
    asked = looked_up(gold, [question for some in wanted.values() for question in some], Vectors(given.vectors))
    for name in wanted:
        some = [each for each in asked if (set(each.question.gold) <= set(CHOICE)) == (name == "choice")]
        documents = sorted({document for each in some for document in each.question.gold})
        tell(f"{name.capitalize()} ({', '.join(documents)})", some, texts)
    more = embedding_ms(asked[:_EMBEDDED])
    print(f"\nVectors of all that could be quoted would take {more:.0f} ms of the processor more (median).")


if __name__ == "__main__":
    main()
