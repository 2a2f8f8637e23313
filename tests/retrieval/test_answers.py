"""The measures of grounded answers."""

from __future__ import annotations

import numpy as np

from parkway.core.grounding import Citation, Grounded, Unsupported
from parkway.retrieval.answers import Answer, evaluate, table
from parkway.retrieval.evaluation import Question


def citation(document: str, start: int, end: int) -> Citation:
    return Citation(
        number=1, collection="docs", document_id=document, passage_id="p", answer_start=start, answer_end=end,
        marker_start=end, marker_end=end + 4, quote="q", uri=f"file:///{document}",
    )  # fmt: skip


def answer(text: str, *citations: Citation, unsupported: int = 0, dropped: int = 0, answered: bool = True) -> Answer:
    places = [Unsupported(answer_start=at, answer_end=at + 1) for at in range(unsupported)]
    told = Grounded(
        tier="generated", answered=answered, confidence=0.5, citations=list(citations), unsupported=places,
        dropped=dropped,
    )  # fmt: skip
    return Answer(text, told, 10.0)


ANSWERS = {
    "how long": answer("A key is valid for Thirty days [1].", citation("keys.md", 0, 34), citation("b.md", 0, 34)),
    "who pays": answer("The team pays [1]. Always [unsupported].", citation("b.md", 0, 13), unsupported=1, dropped=1),
    "when": answer("I do not know.", answered=False),
    "mars": answer("Olympus [1].", citation("b.md", 0, 7)),
    "venus": answer("I do not know.", answered=False),
}
QUESTIONS = [
    Question("how long", ["keys.md"], answer="thirty days"),
    Question("who pays", ["keys.md"], answer=["the administrator", "a team leader"]),
    Question("when", ["keys.md"], answer="in May"),
    Question("mars"),
    Question("venus"),
]


def test_answers_are_measured_by_what_is_known_of_them() -> None:
    found = evaluate(QUESTIONS, ANSWERS.__getitem__)
    nan = np.nan
    expected = {
        "answered": [1, 1, 0, nan, nan],
        "false answers": [nan, nan, nan, 1, 0],
        "grounded": [1, 1 / 3, nan, 1, nan],
        "cited": [1, 0, nan, nan, nan],
        "exact": [1, 0, 0, nan, nan],
        "F1": [4 / 8, 2 / 5, 0, nan, nan],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, err_msg=name)
    told = table(found)
    assert "| answered: questions with an answer that get one | 0.667 | 0.000 to 1.000 |" in told
    assert "10 / 10 / 10" in told


def test_what_nothing_is_known_of_is_left_out() -> None:
    told = table(evaluate([Question("how long", ["keys.md"])], ANSWERS.__getitem__))
    assert "exact" not in told
    assert "false answers" not in told
