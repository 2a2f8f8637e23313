"""Reading WordNet's files."""

from pathlib import Path

import pytest

from parkway.core.errors import ConfigurationError
from parkway.train.wordnet import read_wordnet
from tests.train.made_up import write_wordnet


def test_nouns_stand_by_their_field_and_names_apart(tmp_path: Path) -> None:
    write_wordnet(tmp_path)
    words = read_wordnet(tmp_path, {"archive"})
    assert set(words["animal"]) == {"aardvark", "ant bear"}
    assert words["place"] == ["Paris"]
    assert "artifact" not in words  # one is a word of the field, the other of computers


def test_a_noun_that_is_used_often_is_drawn_often(tmp_path: Path) -> None:
    write_wordnet(tmp_path)
    animals = read_wordnet(tmp_path, frozenset())["animal"]
    assert animals.count("aardvark") > animals.count("ant bear") == 1


def test_examples_of_use_are_sentences(tmp_path: Path) -> None:
    write_wordnet(tmp_path)
    sentences = read_wordnet(tmp_path, frozenset())["sentence"]
    assert "the children ran to the store" in sentences
    assert "run!" not in sentences
    assert "he lost the floppy again" not in sentences


def test_a_folder_without_the_database_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="apt-get install wordnet-base"):
        read_wordnet(tmp_path, frozenset())


def test_the_database_that_debian_ships() -> None:
    directory = Path("/usr/share/wordnet")
    if not directory.is_dir():
        pytest.skip("needs Debian's package wordnet-base")
    words = read_wordnet(directory, frozenset())
    assert len(words["animal"]) > 5000
    assert "Paris" in words["place"]
