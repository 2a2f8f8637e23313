"""Names of one's own in tasks and their lines."""

import random

import pytest

from parkway.train import names, phrasing
from parkway.train.names import Named, with_names


def drawn(task: str, line: str) -> list[Named]:
    rng = random.Random(0)
    given = [with_names(task, line, rng) for _ in range(200)]
    return [each for each in given if each.names]


@pytest.mark.parametrize(
    ("task", "line", "gone"),
    [
        ("Extract a zip archive", "unzip path/to/archive.zip", "path/to"),
        ("Count the lines of a file", "wc -l path/to/file", "path/to"),
        ("Install a package", "sudo apt install package", "install package"),
        ("Stop a service", "systemctl stop service_name", "service_name"),
        ("Ping a host", "ping example.com", "example.com"),
        ("Search for a text in a file", 'grep "text" path/to/file', '"text"'),
        ("End a process", "kill process_id", "process_id"),
        ("Download a web page", "curl https://example.com", "example.com"),
    ],
)
def test_a_name_takes_the_place_of_noun_and_placeholder(task: str, line: str, gone: str) -> None:
    given = drawn(task, line)
    assert len({each.names for each in given}) > 20
    assert any(gone not in each.line for each in given)
    for each in given:
        assert all(name in each.task and name in each.line for name in each.names)


def test_a_file_keeps_its_ending() -> None:
    assert all(each.names[0].endswith(".tar.gz") for each in drawn("Unpack an archive", "tar xf path/to/file.tar.gz"))


@pytest.mark.parametrize(
    ("task", "line"),
    [
        ("Compare a file with a file", "diff path/to/file path/to/file"),
        ("Copy a file", "cp path/to/file1 path/to/file2"),
        ("List all files", "ls path/to/directory"),
        ("Show a file name", "basename path/to/file"),
    ],
)
def test_what_does_not_match_one_to_one_stays_as_it_is(task: str, line: str) -> None:
    assert not drawn(task, line)


def test_no_name_is_a_word_that_questions_change() -> None:
    assert not {word for words in names._WORDS.values() for word in words} & set(phrasing._SYNONYMS)
