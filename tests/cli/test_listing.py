"""Tables and JSON."""

import pytest

from parkway.cli.listing import print_json, print_table


def test_text_to_the_left_numbers_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "count"), [("a", 1), ("long name", 1000), ("b", None)])
    assert capsys.readouterr().out == "name       count\na              1\nlong name   1000\nb              -\n"


def test_wide_characters_and_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "x"), [("日本", "y"), ("a\x1b[2Jb\n", "z")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "日本         y", "each of the two takes two columns"
    assert lines[2] == r"a\x1b[2Jb\n  z"


def test_an_empty_table_has_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "count"), [])
    assert capsys.readouterr().out == "name  count\n"


def test_json_is_indented(capsys: pytest.CaptureFixture[str]) -> None:
    print_json([{"a": 1}])
    assert capsys.readouterr().out == '[\n  {\n    "a": 1\n  }\n]\n'
