"""From sources to the index and out of it again."""

from __future__ import annotations

import time

from tests.retrieval.ingest.stage import Stage


def test_what_lies_in_a_folder_is_found(stage: Stage) -> None:
    stage.write("one.md", "# Ferries\n\nThe ferry to Skye leaves at noon.")
    stage.write("deep/er/two.txt", "Trains go to Mallaig.")
    stage.start()
    stage.settle()
    assert stage.found("ferry") == {"# Ferries\n\nThe ferry to Skye leaves at noon."}
    assert stage.found("Mallaig") == {"Trains go to Mallaig."}
    assert stage.states() == {"one.md": ("indexed", ""), "two.txt": ("indexed", "")}


def test_changes_and_removals_are_followed_at_once(stage: Stage) -> None:
    stage.write("one.txt", "alpha")
    stage.start()
    stage.settle()
    began = time.monotonic()
    stage.write("two.txt", "beta")
    _until(lambda: stage.found("beta"))
    print("new", time.monotonic() - began)
    began = time.monotonic()
    stage.write("one.txt", "gamma")
    _until(lambda: stage.found("gamma") and not stage.found("alpha"))
    print("changed", time.monotonic() - began)
    began = time.monotonic()
    (stage.folder / "two.txt").unlink()
    _until(lambda: not stage.found("beta"))
    print("gone", time.monotonic() - began)
    _until(lambda: set(stage.states()) == {"one.txt"})


def _until(holds: object, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():  # pyright: ignore
        assert time.monotonic() < deadline
        time.sleep(0.02)
