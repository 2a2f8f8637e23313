"""How good grounded answers are: on questions whose answers are known."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from parkway.core.grounding import Grounded
from parkway.retrieval.evaluation import Question, interval
from parkway.retrieval.ranking.fusion import Numbers

_MARKER = re.compile(r"\s*\[(?:\d+|unsupported)\]")
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_NOT_A_WORD = re.compile(r"[^\w\s]")

MEASURES = {
    "answered": "questions with an answer that get one",
    "false answers": "questions without an answer that get one",
    "grounded": "sentences that a passage carries",
    "cited": "answers that cite what is relevant",
    "exact": "questions whose answer has the expected words in it",
    "F1": "words in common with what is expected",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for a question.

    Attributes:
        took_ms: From the question to the end of the answer.
    """

    text: str
    grounded: Grounded
    took_ms: float


def evaluate(questions: Sequence[Question], ask: Callable[[str], Answer]) -> dict[str, Numbers]:
    """The measures, by name, and `took_ms`; float64 [questions], NaN where a question says nothing of it."""
    rows = [_measures(question, ask(question.query)) for question in questions]
    return {name: np.array([row[name] for row in rows]) for name in (*MEASURES, "took_ms")}


def table(results: dict[str, Numbers]) -> str:
    """As Markdown; what nothing is known of is left out."""
    lines = ["| answers | | 95 % |", "|---|---|---|"]
    for name, what in MEASURES.items():
        found = interval(results[name])
        if not math.isnan(found.mean):
            lines.append(f"| {name}: {what} | {found.mean:.3f} | {found.low:.3f} to {found.high:.3f} |")
    times = " / ".join(f"{value:.0f}" for value in np.percentile(results["took_ms"], [50, 95, 99]))
    lines.append(f"| time of an answer, ms: p50 / p95 / p99 | {times} | |")
    return "\n".join(lines)


def _measures(question: Question, answer: Answer) -> dict[str, float]:
    told = answer.grounded
    row = dict.fromkeys(MEASURES, math.nan)
    row["answered" if question.gold else "false answers"] = float(told.answered)
    row["took_ms"] = answer.took_ms
    if expected := [plain for each in question.answers if (plain := _plain(each))]:
        said = _plain(_MARKER.sub("", answer.text)) if told.answered else ""
        row["exact"] = float(any(f" {each} " in f" {said} " for each in expected))
        row["F1"] = max(_overlap(each.split(), said.split()) for each in expected)
    if not told.answered:
        return row
    carried = len({(each.answer_start, each.answer_end) for each in told.citations})
    sentences = carried + len(told.unsupported) + told.dropped
    if sentences:
        row["grounded"] = carried / sentences
    if question.gold:
        row["cited"] = float(
            any(each.names(one.document_id, one.uri) for each in question.gold for one in told.citations)
        )
    return row


def _plain(text: str) -> str:
    """Without case, punctuation, articles and spaces, as SQuAD compares. Source: Rajpurkar et al., 2016, 1606.05250."""
    return " ".join(_ARTICLE.sub(" ", _NOT_A_WORD.sub(" ", text.lower())).split())


def _overlap(expected: list[str], said: list[str]) -> float:
    common = (Counter(expected) & Counter(said)).total()
    return 2 * common / (len(expected) + len(said)) if said else 0.0
