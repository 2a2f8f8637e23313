"""Cleaning pages, and holding examples out."""

import random
from pathlib import Path

import pytest

from parkway.core.errors import ConfigurationError
from parkway.train.corpus import (
    Example,
    Split,
    ambiguous_tasks,
    clean_about,
    clean_line,
    clean_task,
    normalised,
    read_examples,
)
from tests.train.made_up import write_corpus

TLDR = Path(__file__).parents[3] / "shared" / "data" / "tldr" / "examples.jsonl"


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("tar xf {{path/to/source.tar[.gz|.bz2|.xz]}}", "tar xf path/to/source.tar.gz"),
        ("ls {{[-a|--all]}}", "ls --all"),
        ("aws s3 --output {{json|table|text}}", "aws s3 --output json"),
        ("cat {{path/to/file1 path/to/file2 ...}}", "cat path/to/file1 path/to/file2"),
        (r"docker ps --format '\{\{.Names\}\}'", "docker ps --format '{{.Names}}'"),
        ("[ -d {{path/to/directory}} ]", "[ -d path/to/directory ]"),
        ("pwd", "pwd"),
    ],
)
def test_a_line_reads_as_somebody_would_type_it(raw: str, clean: str) -> None:
    assert clean_line(raw) == clean


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("E[x]tract an archive", "Extract an archive"),
        ("[l]ist all [r]unning services", "List all running services"),
        ("Test `[a]` as it stands:", "Test `[a]` as it stands"),
        ("Display  help.", "Display help"),
    ],
)
def test_a_task_loses_its_mnemonics_but_not_its_code(raw: str, clean: str) -> None:
    assert clean_task(raw) == clean


def test_about_keeps_one_sentence() -> None:
    assert clean_about("Archiving utility. Often combined with gzip. See also `zip`.") == "Archiving utility."
    assert clean_about("Handle e.g. images") == "Handle e.g. images."


def test_only_the_platforms_asked_for_are_read(tmp_path: Path) -> None:
    examples = read_examples(write_corpus(tmp_path / "examples.jsonl"))
    assert len(examples) == 30
    assert examples[0] == Example(
        "dofile", "Handle files.", "List files in a directory", "dofile --list path/to/directory"
    )


@pytest.mark.parametrize("row", ['{"platform": "common"}', "[]", "not json", '{"platform": 1, "command": 2}'])
def test_a_bad_row_is_named(tmp_path: Path, row: str) -> None:
    path = write_corpus(tmp_path / "examples.jsonl")
    path.write_text(path.read_text() + row + "\n")
    with pytest.raises(ConfigurationError, match=r"examples\.jsonl:32"):
        read_examples(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="absent"):
        read_examples(tmp_path / "absent")


def test_tasks_of_several_commands_are_ambiguous() -> None:
    examples = [Example("a", "", "Display help", "a -h"), Example("b", "", "Display `help`", "b -h")]
    assert ambiguous_tasks([*examples, Example("a", "", "Run", "a")]) == {"display help"}


def examples_of(commands: int, each: int) -> list[Example]:
    return [Example(f"c{c}", "", f"Do thing {t} with {c}", f"c{c} --{t}") for c in range(commands) for t in range(each)]


def test_no_held_out_task_or_line_is_trained() -> None:
    examples = examples_of(commands=10, each=8)
    # The same task under another command, and the same line under another task, must not be held out.
    examples += [Example("other", "", each.task, "other") for each in examples[:40]]
    split = Split.draw(examples, held_out=20, seed=1)
    trained_tasks = {normalised(each.task) for each in split.trained}
    trained_lines = {each.line for each in split.trained}
    assert len(split.held_out) == 20
    assert len(split.trained) == len(examples) - 20
    for each in split.held_out:
        assert normalised(each.task) not in trained_tasks
        assert each.line not in trained_lines


def test_a_held_out_command_stays_known() -> None:
    split = Split.draw(examples_of(commands=6, each=7), held_out=1000, seed=2)
    for command in {each.command for each in split.held_out}:
        assert sum(each.command == command for each in split.trained) >= 4


def test_the_split_follows_its_seed_alone() -> None:
    examples = examples_of(commands=10, each=8)
    random.seed(5)
    first = Split.draw(examples, held_out=10, seed=3)
    random.seed(6)
    assert Split.draw(examples, held_out=10, seed=3) == first
    assert Split.draw(examples, held_out=10, seed=4) != first


def test_the_real_pages_are_clean() -> None:
    if not TLDR.exists():
        pytest.skip(f"needs the tldr-pages examples at {TLDR}, which are not part of the repository")
    examples = read_examples(TLDR)
    assert len(examples) > 25_000
    assert not [each.line for each in examples if "{{[" in each.line]
    split = Split.draw(examples, held_out=500, seed=0)
    assert len(split.held_out) == 500
    assert not {each.line for each in split.held_out} & {each.line for each in split.trained}
