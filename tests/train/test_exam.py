"""What the examination asks and how it counts."""

from pathlib import Path

import pytest

from parkway.core.errors import ConfigurationError
from parkway.train.dialogue import Source
from parkway.train.everyday import EVERYDAY
from parkway.train.exam import Part, Question, Sheet, parts, program, read_outside, strangers
from parkway.train.mini import read_split
from parkway.train.refusals import OUTSIDE, unknown_command
from parkway.train.respondent import Reply
from tests.train.made_up import small_config


@pytest.mark.parametrize(("line", "name"), [("sudo apt install x", "apt"), ("tar xf y", "tar"), ("", ""), ("sudo", "")])
def test_program(line: str, name: str) -> None:
    assert program(line) == name


def test_figures_count_commands_lines_and_refusals(tmp_path: Path) -> None:
    example = read_split(small_config(tmp_path)).trained[0]
    replies = (
        Reply(f"{example.task}:\n```\n{example.line}\n```", ended=True),
        Reply(f"{example.task}:\n```\n{program(example.line)} --other\n```", ended=True),
        Reply(OUTSIDE, ended=True),
        Reply("", ended=False),
    )
    figures = Sheet(Part("p", (Question.about("q", example),) * 4), replies).figures()
    assert (figures.right_command, figures.right_line, figures.declined, figures.ended) == (0.5, 0.25, 0.25, 0.75)


def test_what_should_be_declined_has_no_right_command() -> None:
    figures = Sheet(Part("p", (Question("q"),)), (Reply(OUTSIDE, ended=True),)).figures()
    assert (figures.right_command, figures.right_line, figures.declined) == (None, None, 1.0)


def test_both_ways_to_decline_count() -> None:
    assert Reply(OUTSIDE, ended=True).declined
    assert Reply(unknown_command("blorp"), ended=True).declined
    assert not Reply("List files with `ls`:\n```\nls\n```", ended=True).declined


def test_every_part_has_its_questions_and_the_seed_decides_them(tmp_path: Path) -> None:
    split = read_split(small_config(tmp_path))
    source = Source.of(split.trained, known=split.held_out)
    asked = parts(source, split, ["Why?"], seed=1, count=4)
    assert all(part.questions for part in asked)
    assert asked == parts(source, split, ["Why?"], seed=1, count=4)
    held_out = {each.line for each in split.held_out}
    for part in asked:
        lines = {each.line for each in part.questions} - {None}
        assert (lines <= held_out) if part.name.startswith("held-out") else not (lines & held_out)


def test_no_question_of_a_stranger_is_trained() -> None:
    trained = {wanted for each in EVERYDAY for wanted in each.wanted}
    for each in (*strangers("strangers.txt"), *strangers("others.txt")):
        assert each.programs
        assert each.text.lower() not in trained


def test_outside_questions_need_their_field(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "x"}\n')
    with pytest.raises(ConfigurationError, match="text"):
        read_outside(path, limit=1, seed=0)
