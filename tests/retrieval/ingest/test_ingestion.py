"""From sources to the index and out of it again."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from parkway.core.errors import BodyTooLarge, IndexUnavailable, InvalidRequest, StoreUnavailable
from parkway.retrieval.catalogue import Document, Partition, document_id
from parkway.retrieval.ingest import folder, indexing, ingestion
from parkway.retrieval.ingest.folder import Folder
from parkway.retrieval.ingest.leaving import Leaving
from parkway.retrieval.ingest.source import Content, Entry, SourceUnavailable, Unknown
from parkway.retrieval.ingest.uploads import Header, Uploads
from parkway.retrieval.parsing import file
from tests.retrieval.ingest.stage import Stage, vector


def until(holds: Callable[[], object], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.02)


def test_what_lies_in_a_folder_is_found(stage: Stage) -> None:
    stage.write("one.md", "# Ferries\n\nThe ferry to Skye leaves at noon.")
    stage.write("deep/er/two.txt", "Trains go to Mallaig.")
    stage.start()
    stage.settle()
    assert stage.found("ferry") == {"# Ferries\n\nThe ferry to Skye leaves at noon."}
    assert stage.found("Mallaig") == {"Trains go to Mallaig."}
    assert stage.states() == {"one.md": ("indexed", ""), "two.txt": ("indexed", "")}
    [status] = stage.listing.statuses("docs")
    assert (status.documents, status.indexed, status.waiting, status.passages) == (2, 2, 0, 2)
    known = {one.title: one.characters for one in stage.documents()}
    assert known == {"Ferries": 44, "two.txt": 21}


def test_both_databases_do(database_url: str, tmp_path: Path) -> None:
    stage = Stage(tmp_path / "home", database_url)
    for number in range(40):
        stage.write(f"{number}.txt", f"document w{number}")
    running = stage.start(readers=2)
    stage.settle()
    stage.write("1.txt", "changed")
    (stage.folder / "2.txt").unlink()
    running.put(Header("upload"), [b"uploaded"])
    stage.settle()
    content = stage.content()
    assert len(content) == len(stage.states()) == 40
    assert content[(stage.folder / "1.txt").as_uri()] == [(0, "changed")]
    stage.close()


def test_changes_and_removals_are_followed_without_a_scan(stage: Stage) -> None:
    stage.write("one.txt", "alpha")
    stage.start()
    stage.settle()
    stage.write("two.txt", "beta")
    until(lambda: stage.found("beta"))
    stage.write("one.txt", "gamma")
    until(lambda: stage.found("gamma") and not stage.found("alpha"))
    (stage.folder / "two.txt").unlink()
    until(lambda: not stage.found("beta"))
    stage.write("deep/three.txt", "delta")
    until(lambda: stage.found("delta"))
    (stage.folder / "deep").rename(stage.home / "elsewhere")
    until(lambda: not stage.found("delta"))
    until(lambda: set(stage.states()) == {"one.txt"})


def test_a_folder_that_was_replaced_is_followed_on(stage: Stage) -> None:
    stage.write("one.txt", "alpha")
    stage.start()
    stage.settle()
    for number, word in enumerate(("beta", "gamma")):
        stage.folder.rename(stage.home / f"old-{number}")
        stage.folder.mkdir()
        stage.write("one.txt", word)
        until(lambda word=word: stage.found(word))
        stage.write("two.txt", f"{word} again")
        until(lambda word=word: stage.found(word) == {word, f"{word} again"})
    assert not stage.found("alpha")


def test_what_happens_in_parkways_own_home_wakes_nobody(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    looked: list[Path] = []
    home = stage.folder / "home"
    home.mkdir()
    running = stage.start(home=home)
    stage.settle()
    some_of = running._scan.some_of
    running._scan.some_of = lambda source, paths: looked.extend(paths) or some_of(source, looked[-1:])
    numbers = itertools.count()

    def written() -> bool:
        (home / "parkway.log").write_text("a line")
        stage.write("one.txt", f"alpha {next(numbers)}")
        return bool(looked)

    until(written)  # it may take a moment until changes are seen
    assert set(looked) == {stage.folder / "one.txt"}
    assert not [each for each in caplog.records if each.name.startswith("watchfiles")]


def test_a_file_that_is_replaced_as_editors_do_is_followed_on(stage: Stage) -> None:
    path = stage.write("one.txt", "alpha")
    stage.settings["sources"] = [{"path": str(path), "rescan_s": 3600}]
    stage.start()
    stage.settle()
    for word in ("beta", "gamma"):
        stage.write("beside.txt", word).rename(path)
        until(lambda word=word: stage.found(word))


def test_a_bad_file_is_set_aside_and_stops_nothing(stage: Stage) -> None:
    stage.write("bad.pdf", b"%PDF-1.7\nnonsense")
    stage.write("picture.txt", b"\x89PNG\r\n\x1a\n")
    stage.write("empty.txt", "")
    stage.write("good\nname.txt", "good")
    (stage.folder / "link").symlink_to("/etc/passwd")
    stage.start()
    stage.settle()
    found = stage.states()
    assert found["good%0Aname.txt"] == ("indexed", "")
    assert found["empty.txt"] == ("set_aside", "is empty")
    assert found["picture.txt"] == ("set_aside", "is a picture; there is no text in it that can be read")
    assert found["link"][1].startswith("is a symbolic link out of its folder")
    assert found["bad.pdf"][0] == "set_aside"
    stage.write("picture.txt", "words after all")
    stage.settle()
    assert stage.states()["picture.txt"] == ("indexed", "")
    stage.write("good\nname.txt", b"\x89PNG\r\n\x1a\n")
    stage.settle()
    assert not stage.found("good"), "what it said before is not its content any more"


def test_what_did_not_change_is_not_embedded_again(stage: Stage) -> None:
    paragraphs = [f"Paragraph {n}: " + " ".join(f"w{n}x{m}" for m in range(100)) for n in range(10)]
    stage.write("one.txt", "\n\n".join(paragraphs))
    stage.start()
    stage.settle()
    assert sum(stage.encoding.batches) == 10
    os.utime(stage.folder / "one.txt")
    stage.settle()
    assert sum(stage.encoding.batches) == 10
    paragraphs[3] = "Paragraph 3: " + " ".join(["lighthouses"] * 100)
    stage.write("one.txt", "\n\n".join(paragraphs))
    stage.settle()
    assert sum(stage.encoding.batches) == 11
    assert len(stage.found("lighthouses")) == 1
    assert len(stage.content()[(stage.folder / "one.txt").as_uri()]) == 10
    (stage.folder / "one.txt").rename(stage.folder / "other.txt")
    stage.settle()
    assert set(stage.states()) == {"other.txt"}


def test_a_folder_that_is_renamed_is_not_embedded_again(stage: Stage) -> None:
    for number in range(40):
        stage.write(f"old/{number}.txt", f"document w{number}")
    running = stage.start()
    stage.settle()
    embedded = sum(stage.encoding.batches)
    (stage.folder / "old").rename(stage.folder / "new")
    running.rescan()
    stage.settle()
    assert {each.uri.split("/")[-2] for each in stage.documents()} == {"new"}
    assert all(stage.found(f"w{number}") for number in range(40))
    assert sum(stage.encoding.batches) == embedded


def test_vectors_of_what_was_removed_are_kept_for_a_while() -> None:
    leaving = Leaving(most_bytes=3 * 64, keep_ms=1000)
    leaving.keep({text: vector(text) for text in "abcd"}, 5000)
    leaving.expire(5999)
    assert leaving.full
    assert leaving.take("ad").keys() == {"a"}, "there was room for three"
    assert leaving.take("a") == {}, "it is in the index by now"
    assert not leaving.full
    leaving.keep({"e": vector("e")}, 5999)
    leaving.expire(6500)
    assert leaving.take("bce").keys() == {"b", "c", "e"}
    leaving.keep({"f": vector("f")}, 6500)
    leaving.expire(7500)
    assert leaving.take("f") == {}


def test_batches_are_gathered_over_documents(stage: Stage) -> None:
    for number in range(1300):
        stage.write(f"{number}.txt", f"document w{number}")
    stage.start()
    stage.settle(100)
    assert sum(stage.encoding.batches) == 1300
    assert max(stage.encoding.batches) <= indexing.MOST
    assert len(stage.encoding.batches) <= 5, stage.encoding.batches


def test_what_an_encoder_cannot_take_costs_one_document(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "_FIRST_MS", 1)
    monkeypatch.setattr(indexing, "MAX_ATTEMPTS", 3)
    stage.encoding.poison = "poison"
    stage.write("a.txt", "poison")
    stage.write("b.txt", "wholesome")
    stage.start()
    assert stage.ingestion is not None
    until(lambda: stage.states().get("a.txt", ("", ""))[0] == "set_aside" and stage.found("wholesome"))
    assert "failed 3 times" in stage.states()["a.txt"][1]
    assert "poisoned" in stage.states()["a.txt"][1]
    stage.encoding.poison = ""
    stage.settle()
    assert stage.found("poison"), "a scan has it tried again"


def test_an_outage_is_outlived(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "_FIRST_MS", 1)
    monkeypatch.setattr(indexing, "MAX_WAIT_MS", 10)
    monkeypatch.setattr(ingestion, "_BACK_OFF_S", (0.01, 0.05))
    stage.encoding.failing = [ConnectionError("away"), *[IndexUnavailable("away")] * 10, StoreUnavailable("away")]
    finish, failures = stage.catalogue.finish, [StoreUnavailable("away"), StoreUnavailable("away")]

    def fail(*arguments: object) -> None:
        if failures:
            raise failures.pop()
        finish(*arguments)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(stage.catalogue, "finish", fail)
    stage.write("a.txt", "patience")
    stage.start()
    until(lambda: stage.states() == {"a.txt": ("indexed", "")})
    assert stage.content() == {(stage.folder / "a.txt").as_uri(): [(0, "patience")]}


def test_a_folder_that_is_away_removes_nothing(stage: Stage) -> None:
    stage.write("a.txt", "the lighthouse")
    stage.start()
    stage.settle()
    stage.stop()
    stage.folder.rename(stage.home / "unmounted")
    stage.start()
    until(lambda: stage.ingestion is not None and stage.ingestion.trouble)
    assert stage.found("lighthouse")
    stage.stop()
    (stage.home / "unmounted").rename(stage.folder)
    stage.settings["sources"] = []
    stage.start()
    stage.settle()
    assert not stage.found("lighthouse"), "a source that is configured no more is gone"
    assert stage.states() == {}


def test_a_part_of_a_folder_that_cannot_be_looked_through_is_told(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "_MAX_DEPTH", 1)
    stage.write("one.txt", "alpha")
    stage.write("deep/two.txt", "beta")
    stage.write("deep/er/three.txt", "gamma")
    running = stage.start()
    stage.settle()
    until(lambda: running.trouble)
    deeper = (stage.folder / "deep/er").as_uri()
    assert running.trouble == {str(stage.folder): f"{deeper}/: is more than 1 folders deep"}
    assert set(stage.states()) == {"one.txt", "two.txt"}


def test_what_comes_while_a_source_is_looked_through_stays(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    running = stage.start()
    stage.settle()
    files, sent = Folder.entries, Uploads.entries

    def then_a_file(folder: Folder) -> Iterator[Entry | Unknown]:
        yield from files(folder)
        time.sleep(0.01)
        running._scan.some_of(folder, [stage.write("new.txt", "the harbour")])  # as whoever watches does

    def then_an_upload(uploads: Uploads) -> Iterator[Entry | Unknown]:
        yield from sent(uploads)
        time.sleep(0.01)
        running.put(Header("sent"), [b"the lighthouse"])

    with monkeypatch.context() as patched:
        patched.setattr(Folder, "entries", then_a_file)
        patched.setattr(Uploads, "entries", then_an_upload)
        running.rescan()
    assert running.settle(60)
    assert set(stage.states()) == {"new.txt", "sent"}


def test_a_file_that_cannot_be_read_just_now_stays(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stage.write("a.txt", "the lighthouse")
    stage.start()
    stage.settle()
    with monkeypatch.context() as patched:

        def fails(*_: object) -> bytes:
            raise OSError(errno.ESTALE, "Stale file handle")

        patched.setattr(file.os, "read", fails)
        path.write_text("the harbour")
        until(lambda: "Stale" in stage.states()["a.txt"][1])
        assert stage.found("lighthouse")
    until(lambda: stage.found("harbour"))


@pytest.mark.parametrize("mount_point", [True, False], ids=["empty", "missing"])
def test_what_waits_for_a_folder_that_is_away_stays(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, mount_point: bool
) -> None:
    monkeypatch.setattr(indexing, "_FIRST_MS", 1)
    monkeypatch.setattr(indexing, "MAX_WAIT_MS", 10)
    stage.write("deep/a.txt", "the lighthouse")
    stage.start()
    stage.settle()
    stage.stop()
    stage.folder.rename(stage.home / "mounted")
    if mount_point:
        stage.folder.mkdir()
    stage.settings["metadata"] = {"year": 2026}  # all of it has to be read again
    running = stage.start()
    until(lambda: running.indexing.failures.postponed > indexing.MAX_ATTEMPTS)
    assert stage.found("lighthouse")
    assert stage.states()["a.txt"][0] == "waiting"
    if mount_point:
        stage.folder.rmdir()
    (stage.home / "mounted").rename(stage.folder)
    until(lambda: stage.states()["a.txt"] == ("indexed", ""))


def test_an_empty_mount_point_removes_nothing(stage: Stage) -> None:
    stage.write("a.txt", "the lighthouse")
    stage.write("b.txt", "the harbour")
    running = stage.start()
    stage.settle()
    mounted = stage.home / "mounted"
    for restart in (False, True):
        stage.folder.rename(mounted)
        stage.folder.mkdir()
        if restart:
            running = stage.start()
        with pytest.raises(SourceUnavailable, match="is empty"):
            running.rescan()
        assert stage.found("lighthouse")
        stage.folder.rmdir()
        mounted.rename(stage.folder)
        stage.settle()
    (stage.folder / "a.txt").unlink()
    (stage.folder / "b.txt").unlink()
    stage.settle()
    assert stage.states() == {}, "whoever empties the folder itself means it"


def test_a_disk_that_goes_while_it_is_looked_through_removes_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.write("a.txt", "the lighthouse")
    stage.write("deep/b.txt", "the harbour")
    running = stage.start()
    stage.settle()
    stage.folder.rename(stage.home / "mounted")
    stage.folder.mkdir()
    places = iter([(1, 1), (2, 1)])
    monkeypatch.setattr(Folder, "place", lambda _: next(places))
    with pytest.raises(SourceUnavailable, match="went away"):
        running.rescan()
    assert set(stage.states()) == {"a.txt", "b.txt"}


def test_who_was_closed_changes_nothing_any_more(stage: Stage) -> None:
    stage.write("a.txt", "the lighthouse")
    before = stage.start()
    stage.settle()
    other = stage.home / "other"
    other.mkdir()
    (other / "b.txt").write_text("the harbour")
    stage.settings["sources"] = [{"path": str(stage.folder), "exclude": ["a.txt"]}, {"path": str(other)}]
    now = stage.start()
    now.rescan([str(other)])
    stage.settle()
    with pytest.raises(SourceUnavailable):
        before.rescan()
    stage.start()
    assert set(stage.states()) == {"b.txt"}, "what is configured now holds"


def test_uploads_come_are_replaced_and_go(stage: Stage) -> None:
    running = stage.start()
    header = Header("reports/q1.md", title="First quarter", metadata={"year": 2026}, access=("team:sales",))
    identifier = running.put(header, [b"# Sales\n\n", b"grew by a third"])
    assert identifier == document_id("docs", "uploads", "reports/q1.md")
    assert running.settle(60)
    assert stage.found("third") == set()
    assert len(stage.found("third", "team:sales")) == 1
    [passage] = stage.index.passages(identifier)
    assert (passage.title, passage.metadata["year"], passage.uri) == ("First quarter", 2026, "reports/q1.md")
    running.put(Header("reports/q1.md"), [b"# Sales\n\nshrank"])
    assert running.settle(60)
    assert stage.found("third", "team:sales") == set()
    assert len(stage.found("shrank")) == 1
    assert running.discard("reports/q1.md")
    assert running.settle(60)
    assert not running.discard("reports/q1.md")
    assert stage.index.documents() == {}
    assert stage.listing.document(identifier) is None
    stage.index.optimise()
    stage.stop()
    left = [path for path in stage.home.rglob("*") if path.is_file() and b"shrank" in path.read_bytes()]
    assert [path for path in left if "parkway.db" not in path.name] == []


def test_what_is_read_is_for_whom_it_says_at_that_moment(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    running = stage.start()
    read = Uploads.read

    def late(uploads: Uploads, uri: str, most: int) -> Content:
        uploads.put(Header("a", access=("user:ann",), metadata={"year": 2026}), [b"the secret"], 1000)
        return read(uploads, uri, most)

    monkeypatch.setattr(Uploads, "read", late)
    running.put(Header("a"), [b"for everyone"])
    assert running.settle(60)
    assert stage.found("secret", "user:ann")
    assert not stage.found("secret")
    [[passage]] = map(stage.index.passages, stage.index.documents())
    assert passage.metadata["year"] == 2026


def test_one_is_sent_while_it_is_removed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    running = stage.start()
    monkeypatch.setattr(Uploads, "_sync", lambda uploads: uploads._path("a").unlink(missing_ok=True))
    running.put(Header("a"), [b"the harbour"])
    stage.settle()
    assert stage.states() == {}


def test_uploads_have_limits(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.settings["parsing"] = {"max_bytes": 10}
    running = stage.start()
    with pytest.raises(BodyTooLarge, match="larger than 10 bytes"):
        running.put(Header("a"), [b"12345", b"678901"])
    for name in ("", "a" * 5000, "new\nline", "nul\0"):
        with pytest.raises(InvalidRequest):
            running.put(Header(name), [b"1"])

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(file.os, "fsync", full)
    with pytest.raises(IndexUnavailable, match="No space left"):
        running.put(Header("a"), [b"1"])
    assert list((stage.home / "uploads").iterdir()) == []


def test_access_and_metadata_follow_the_configuration(stage: Stage) -> None:
    stage.settings["sources"] = [{"path": str(stage.folder), "access": ["team:legal"], "metadata": {"area": "law"}}]
    stage.write("a.md", "---\narea: everyone's\n---\n\nconfidential")
    stage.start()
    stage.settle()
    assert stage.found("confidential") == set()
    assert stage.found("confidential", "team:legal")
    [identifier] = stage.index.documents()
    assert stage.index.passages(identifier)[0].metadata["area"] == "law"
    stage.settings["sources"] = [str(stage.folder)]
    stage.start()
    stage.settle()
    assert stage.found("confidential"), "for everyone now"
    assert sum(stage.encoding.batches) == len(stage.index.passages(identifier)), "nothing was embedded again"
    stage.settings["access"] = ["key:b"]
    stage.start()
    stage.settle()
    assert stage.found("confidential") == set()
    assert stage.found("confidential", "key:b")


def test_counts_are_of_what_somebody_may_see(stage: Stage) -> None:
    running = stage.start()
    for name, access in (("all", None), ("ann", ("user:ann",)), ("both", ("user:ann", "key:ci")), ("nobody", ())):
        running.put(Header(name, access=access), [b"the ferry"])
    stage.settle()

    def seen(*principals: str) -> tuple[int, int]:
        [status] = stage.listing.statuses("docs", frozenset(principals))
        return status.documents, status.passages

    assert (seen(), seen("key:ci"), seen("user:ann", "key:ci")) == ((1, 1), (2, 2), (3, 3))
    stage.settings["access"] = ["team:legal"]
    stage.start()
    assert (seen(), seen("team:legal")) == ((0, 0), (1, 1))
    assert stage.listing.statuses("docs")[0].documents == 4


def test_another_encoder_embeds_everything_anew(stage: Stage) -> None:
    stage.write("a.txt", "words")
    stage.start()
    stage.settle()
    stage.encoding.name = "another"
    stage.start()
    stage.settle()
    assert stage.encoding.batches == [1, 1]
    assert len(stage.content()) == 1


def test_an_index_that_was_lost_is_made_again(stage: Stage) -> None:
    stage.write("a.txt", "words")
    stage.write("bad.txt", b"\x89PNG\r\n\x1a\n")
    stage.start()
    stage.settle()
    stage.stop()
    for identifier in stage.index.documents():
        stage.index.remove(identifier)
    stage.start()
    stage.settle()
    assert stage.found("words")


def test_partitions_share_the_documents_out(stage: Stage, tmp_path: Path) -> None:
    for number in range(20):
        stage.write(f"{number}.txt", f"document w{number}")
    stage.start(partition=Partition(0, 2))
    stage.settle()
    mine = stage.index.documents()
    assert 0 < len(mine) < 20
    stage.start(partition=Partition(1, 2), scans=False)
    stage.settle()
    others = stage.index.documents()
    assert not set(mine) & set(others), "what was another partition's is not in the index any more"
    assert len(mine) + len(others) == 20


def test_the_index_is_optimised_while_much_comes_in_and_afterwards(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingestion, "_LOOK_S", 0.01)
    monkeypatch.setattr(ingestion, "_BEHIND", range(50, 50))
    at: list[int] = []
    monkeypatch.setattr(stage.index, "optimise", lambda: at.append(stage.index.size().passages))
    for number in range(60):
        stage.write(f"{number}.txt", f"document w{number}")
    stage.start(optimise_s=3600.0)
    stage.settle()
    until(lambda: at != [])
    monkeypatch.setattr(ingestion, "_BEHIND", range(1000, 1000))
    stage.write("60.txt", "one more")
    stage.start(optimise_s=0.05)
    stage.settle()
    until(lambda: 61 in at)


def test_while_graphs_are_made_too_many_do_not_come_before_them(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingestion, "_LOOK_S", 0.01)
    monkeypatch.setattr(ingestion, "_PACE_S", 0.02)
    monkeypatch.setattr(ingestion, "_BEHIND", range(1, 1))
    monkeypatch.setattr(ingestion, "_TOO_FAR_BEHIND", 20)
    monkeypatch.setattr(ingestion, "_CLAIM", 4)
    monkeypatch.setattr(ingestion, "_ROOM", 10)
    monkeypatch.setattr(indexing, "MOST", 4)
    made, claims = threading.Event(), list[tuple[int, list[str]]]()
    monkeypatch.setattr(stage.index, "optimise", lambda: made.wait(60))
    claim = stage.catalogue.claim

    def noted(collection: str, partition: Partition, limit: int, *times: int) -> list[Document]:
        found = claim(collection, partition, limit, *times)
        claims.append((limit, [document.uri for document in found]))
        return found

    monkeypatch.setattr(stage.catalogue, "claim", noted)
    for number in range(120):
        stage.write(f"{number}.txt", f"document w{number}")
    running = stage.start(optimise_s=3600.0)
    until(lambda: len(claims) > 1 and claims[-1][0] == 1)
    slow = len(claims)
    running.put(Header("late.txt"), [b"urgent and sent"])
    until(lambda: len(claims) > slow + 3)
    assert stage.index.size().passages < 120
    assert "late.txt" in [uri for _, uris in claims[slow : slow + 2] for uri in uris]
    assert {limit for limit, _ in claims[slow:]} == {1}
    made.set()
    stage.settle()
    assert stage.index.size().passages == 121
