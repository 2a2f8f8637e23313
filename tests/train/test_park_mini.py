"""The model that the package ships: its files, and answers that a first visitor is likely to ask for."""

import json

import pytest

from parkway.engine.builtin import PARK_MINI, resolve
from parkway.train.exam import program
from parkway.train.respondent import Respondent

DIRECTORY = resolve(PARK_MINI)


@pytest.fixture(scope="module")
def park_mini() -> Respondent:
    return Respondent(DIRECTORY)


def test_it_is_small_enough_to_ship() -> None:
    assert sum(path.stat().st_size for path in DIRECTORY.iterdir()) <= 30 << 20


def test_its_card_names_the_sources_and_the_figures_of_its_record() -> None:
    card = (DIRECTORY / "README.md").read_text(encoding="utf-8")
    record = json.loads((DIRECTORY / "training.json").read_text(encoding="utf-8"))
    for source in record["data"]:
        assert source["name"] in card
        assert source.get("attribution", "") in card
    for figures in record["figures"]:
        shares = (figures["right_command"], figures["right_line"], figures["declined"], figures["ended"])
        cells = " | ".join("" if share is None else f"{100 * share:.1f} %" for share in shares)
        assert f"| {figures['name']} | {figures['asked']} | {cells} |" in card


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("How do I unpack a .tar.gz into another folder?", "tar"),
        ("list all files including hidden ones", "ls"),
        ("How do I undo the last commit?", "git"),
        ("count the lines in a file", "wc"),
        ("restart nginx", "systemctl"),
    ],
)
def test_it_answers_an_everyday_question_with_a_line(park_mini: Respondent, question: str, name: str) -> None:
    (reply,) = park_mini.answer([question])
    assert reply.ended
    assert program(reply.line) == name


def test_it_declines_what_it_cannot_know(park_mini: Respondent) -> None:
    for reply in park_mini.answer(["Why is the sky blue?", "Who was Napoleon?", "Write a poem about the sea."]):
        assert reply.declined
        assert reply.ended
