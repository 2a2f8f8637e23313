"""What a pass over the corpus holds."""

import random
from pathlib import Path

from parkway.train import refusals
from parkway.train.corpus import Example, Split, read_examples
from parkway.train.dialogue import Source, answer
from parkway.train.everyday import EVERYDAY, read_everyday
from parkway.train.pythontools import python_tools
from tests.train.made_up import write_corpus, write_wordnet


def source_of(folder: Path) -> tuple[Source, Split]:
    split = Split.draw(read_examples(write_corpus(folder / "examples.jsonl")), held_out=4, seed=0)
    return Source.of(split.trained, known=split.held_out), split


def test_an_answer_is_a_sentence_and_a_fenced_line() -> None:
    example = Example("tar", "", "Extract an archive", "tar xf path/to/file")
    assert answer(example) == "Extract an archive with `tar`:\n```\ntar xf path/to/file\n```"


def test_an_answer_names_the_command_once() -> None:
    example = Example("tar", "", "Start `tar` quietly", "tar")
    assert answer(example).count("`tar`") == 1


def test_a_pass_has_every_trained_example_and_no_held_out_one(tmp_path: Path) -> None:
    source, split = source_of(tmp_path)
    said = {turn.content for dialogue in source.dialogues(random.Random(1)) for turn in dialogue}
    sentences = {text.split("```")[0] for text in said if "```" in text}
    assert {answer(each).split("```")[0] for each in (*split.trained, *EVERYDAY_EXAMPLES)} <= sentences
    assert not {answer(each).split("```")[0] for each in split.held_out} & sentences
    assert not [text for text in said for each in split.held_out if each.line in text]


EVERYDAY_EXAMPLES = [each.example for each in EVERYDAY]


def test_passes_differ_in_their_words_and_follow_their_seed(tmp_path: Path) -> None:
    source, _ = source_of(tmp_path)
    first, second = list(source.dialogues(random.Random(1))), list(source.dialogues(random.Random(2)))
    assert list(source.dialogues(random.Random(1))) == first
    assert {d[-2].content for d in first} != {d[-2].content for d in second}


def test_turns_alternate_and_end_with_the_assistant(tmp_path: Path) -> None:
    source, _ = source_of(tmp_path)
    lengths = set()
    for dialogue in source.dialogues(random.Random(3)):
        roles = [turn.role for turn in dialogue if turn.role != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert "system" not in [turn.role for turn in dialogue[1:]]
        lengths.add(len(dialogue))
    assert len(lengths) > 2


def test_a_task_of_several_commands_is_never_asked_without_one() -> None:
    examples = [Example(name, "", "Display help", f"{name} -h") for name in ("alpha", "beta")]
    source = Source.of(examples)
    rng = random.Random(4)
    for example in examples:
        assert all(example.command in source.ask(example, rng).lower() for _ in range(100))


def test_names_of_ones_own_stand_in_question_and_answer() -> None:
    source = Source.of([Example("tar", "Archiving utility.", "Extract a file", "tar xf path/to/file.tar")])
    rng = random.Random(6)
    drawn = [source.ask_with_names(source.examples[0], rng) for _ in range(100)]
    given = [each for each in drawn if each]
    assert len(given) > 50
    for asked, example in given:
        name = example.line.removeprefix("tar xf ")
        assert name in asked
        assert name.endswith(".tar")


def test_words_of_wordnet_widen_the_questions_outside_the_field(tmp_path: Path) -> None:
    write_wordnet(tmp_path)
    source = Source.of([Example("tar", "", "Extract an archive", "tar xf path/to/file")], wordnet=tmp_path)
    assert source.outside["animal"].count("aardvark") == 5
    rng = random.Random(7)
    asked = [source._outside(rng)[0] for _ in range(3000)]
    assert any("aardvark" in each for each in asked)
    assert "artifact" not in source.outside  # "archive" is a word of the field


def test_invented_commands_are_declined_by_name(tmp_path: Path) -> None:
    source, _ = source_of(tmp_path)
    opening = refusals.unknown_command("").split("`")[0]
    declined = [
        (dialogue[at - 1].content, turn.content)
        for dialogue in source.dialogues(random.Random(5))
        for at, turn in enumerate(dialogue)
        if turn.content.startswith(opening)
    ]
    assert declined
    for asked, answered in declined:
        name = answered.split("`")[1]
        assert name in asked.lower()
        assert name not in source.known


def test_a_pipe_in_an_everyday_line_stays_in_it() -> None:
    (each,) = read_everyday("# remark\nuniq | Count lines | sort file | uniq -c | count lines; tally lines")
    assert each.example.line == "sort file | uniq -c"
    assert each.wanted == ("count lines", "tally lines")


def test_python_tools_are_described_by_their_own_documentation() -> None:
    tools = {each.command: each for each in python_tools()}
    assert "pretty-print JSON" in tools["python3 -m json.tool"].about
    assert all(each.about.endswith(".") and "\n" not in each.about for each in tools.values())
