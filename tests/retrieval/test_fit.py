"""Whether questions fit a collection."""

from __future__ import annotations

import pytest

from parkway.core.errors import ConfigurationError
from parkway.core.knowledge import DocumentStatus
from parkway.retrieval.evaluation import Question, Relevant
from parkway.retrieval.fit import Fit, names_of

KEYS = DocumentStatus(document_id="1", uri="docs/keys.md", state="indexed", characters=100, passages=2)
READMES = [
    DocumentStatus(document_id=f"{number}", uri=uri, state="indexed", characters=50, passages=1)
    for number, uri in enumerate(("docs/README.md", "docs/old/README.md"), 2)
]
LOCKED = DocumentStatus(document_id="4", uri="docs/x.pdf", state="set_aside", reason="needs a password")
DOCUMENTS = [KEYS, *READMES, LOCKED]
HINT = 'a document is named by its id, its URI, or the end of its URI from a "/" on; they are shown by: '


def fit(*relevant: str | Relevant) -> Fit:
    """Of a question for each, and one without an answer."""
    return Fit.of("docs", [Question("mars?"), *(Question("what?", [each]) for each in relevant)], DOCUMENTS)


def test_what_fits_is_not_worth_a_word() -> None:
    found = fit("1", "docs/keys.md", "keys.md", Relevant("keys.md", 99, 140), "old/README.md")
    found.check()
    assert (found.remarks, found.warnings, found.questions) == ([], [], 5)
    Fit.of("docs", [Question("mars?")], []).check()


def test_names_are_those_that_measures_go_by() -> None:
    for uri in ("docs/a b/keys.md", "keys.md", "/srv/keys.md", "file:///srv/keys.md", "a//b", "a/"):
        named = names_of("4f", uri)
        assert all(Relevant(name).names("4f", uri) for name in named if name)
        ends = {uri[at:] for at in range(len(uri))} | {"4f", "4", "docs"}
        assert {name for name in ends if Relevant(name).names("4f", uri)} == {name for name in named if name}


def test_what_is_not_there_is_told_with_what_may_be_meant() -> None:
    found = fit("docs/key.md", "/home/ann/parkway/docs/keys.md", "KEYS.MD", "moon.txt", "1")
    found.check()
    first, *rest = found.warnings
    assert first == "4 of 5 questions name documents that docs does not have; these count as not found"
    assert found.remarks == [first]
    meant = '; did you mean "docs/keys.md"?'
    assert rest == [
        f'  "docs/key.md"{meant}', f'  "/home/ann/parkway/docs/keys.md"{meant}', f'  "KEYS.MD"{meant}', '  "moon.txt"',
        f"{HINT}parkway knowledge status docs --documents",
    ]  # fmt: skip
    many = fit("1", *(f"moon {number}" for number in range(7)))
    assert [line for line in many.warnings if line.startswith("  ")][-2:] == ['  "moon 4"', "  and 2 more"]


def test_nothing_that_fits_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="nothing that is named as relevant is in docs, which has 4 documents"):
        fit("moon.txt", "4983").check()
    fit("x.pdf").check()  # it is there; that it cannot be found is what is measured


@pytest.mark.parametrize(
    ("relevant", "lines"),
    [
        ("x.pdf", ["name documents of docs that are not indexed; these count as not found",
                   '  "x.pdf": needs a password']),
        ("README.md", ["name several documents of docs by one name; any of them counts as right",
                       '  "README.md" fits 2 documents']),
        (Relevant("keys.md", 100, 120), [
            "have spans beyond the text of their document in docs; these count as not found",
            '  "keys.md", 100 to 120: its text has 100 characters',
        ]),
        (Relevant("README.md", 70, 80), [
            "have spans beyond the text of their document in docs; these count as not found",
            '  "README.md", 70 to 80: its text has 50 characters',
            "name several documents of docs by one name; any of them counts as right",
            '  "README.md" fits 2 documents',
        ]),
    ],
)  # fmt: skip
def test_what_fits_badly_is_told(relevant: str | Relevant, lines: list[str]) -> None:
    found = fit(relevant, "docs/keys.md").warnings[:-1]
    assert [line.removeprefix("1 of 2 questions ") for line in found] == lines


def test_of_a_text_whose_length_is_not_known_no_span_is_beyond() -> None:
    unknown = DocumentStatus(document_id="1", uri="keys.md", state="indexed", passages=2)
    assert Fit.of("docs", [Question("what?", [Relevant("keys.md", 10**6, 10**6 + 1)])], [unknown]).warnings == []


def test_one_question_counts_once() -> None:
    questions = [Question("what?", ["moon.txt", "sun.txt", "keys.md"]), Question("who?", ["keys.md"])]
    assert Fit.of("docs", questions, DOCUMENTS).remarks == [
        "1 of 2 questions name documents that docs does not have; these count as not found"
    ]
