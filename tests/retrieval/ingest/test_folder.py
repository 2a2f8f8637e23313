"""What is taken of a folder, and what is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from parkway.core.errors import Unreadable
from parkway.retrieval.ingest.folder import Folder
from parkway.retrieval.ingest.pattern import Patterns
from parkway.retrieval.ingest.source import Entry, Missing, SourceUnavailable, Unknown


def names(folder: Folder) -> dict[str, str]:
    """Of all that is listed, by what is left of the uri: why it is refused."""
    start = folder.root.as_uri() + "/"
    return {one.uri.removeprefix(start): one.refused for one in folder.entries() if isinstance(one, Entry)}


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ([], [], {"a.md", "b.txt", "sub/c.md", "sub/deep/d.md"}),
        (["*.md"], [], {"a.md", "sub/c.md", "sub/deep/d.md"}),
        (["/*.md"], [], {"a.md"}),
        (["sub/**"], [], {"sub/c.md", "sub/deep/d.md"}),
        (["**/deep/*.md"], [], {"sub/deep/d.md"}),
        ([], ["deep"], {"a.md", "b.txt", "sub/c.md"}),
        ([], ["sub/deep"], {"a.md", "b.txt", "sub/c.md"}),
        (["*.[mt]*"], ["?.txt"], {"a.md", "sub/c.md", "sub/deep/d.md"}),
        ([".git/**", "*.txt"], [], {".git/config", "b.txt"}),
    ],
)
def test_patterns(tmp_path: Path, include: list[str], exclude: list[str], expected: set[str]) -> None:
    for name in ("a.md", "b.txt", "sub/c.md", "sub/deep/d.md", ".git/config"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    assert set(names(Folder(tmp_path, patterns=Patterns(include, exclude)))) == expected


def test_a_pattern_of_many_stars_takes_no_time() -> None:
    assert not Patterns(["*" * 50 + "b"]).take("a" * 5000)


def test_links_out_of_the_folder_are_said_and_not_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret.txt").write_text("secret")
    (inside / "real.txt").write_text("real")
    (inside / "file").symlink_to(outside / "secret.txt")
    (inside / "folder").symlink_to(outside)
    (inside / "circle").symlink_to(inside / "circle")
    (inside / "within").symlink_to("real.txt")
    folder = Folder(inside)
    found = names(folder)
    assert found["real.txt"] == ""
    assert "symbolic link out of its folder" in found["file"]
    assert "symbolic link out of its folder" in found["folder"]
    assert set(found) == {"real.txt", "file", "folder"}
    for name in ("file", "folder/secret.txt", "../out/secret.txt"):
        with pytest.raises(Missing):
            folder.read(folder.uri(inside) + "/" + name, 1000)
    assert list(folder.at(inside / "folder/secret.txt")) == []


def test_a_file_that_becomes_a_link_after_it_was_listed_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub/a.txt").write_text("a")
    folder = Folder(root)
    [entry] = folder.entries()
    assert isinstance(entry, Entry)
    assert folder.read(entry.uri, 1000).data == b"a"
    (root / "sub/a.txt").unlink()
    (root / "sub/a.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(Missing):
        folder.read(entry.uri, 1000)
    (root / "sub/a.txt").unlink()
    (root / "sub").rmdir()
    (root / "sub").symlink_to(tmp_path)
    with pytest.raises(Missing):
        folder.read(root.as_uri() + "/sub/secret", 1000)


def test_names_of_any_kind(tmp_path: Path) -> None:
    strange = [b"new\nline.txt", b"quote'\".txt", b"percent%20.txt", b"\xff\xfe.txt", "日本.txt".encode(), b"a?b#c.txt"]
    for name in strange:
        (Path(os.fsdecode(bytes(tmp_path) + b"/" + name))).write_bytes(name)
    folder = Folder(tmp_path)
    found = [one for one in folder.entries() if isinstance(one, Entry)]
    assert sorted(folder.read(one.uri, 1000).data for one in found) == sorted(strange)
    assert all(one.uri.isprintable() and one.uri.isascii() for one in found)


def test_what_is_no_file_is_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    folder = Folder(tmp_path)
    assert names(folder) == {}
    with pytest.raises(Unreadable, match="not a regular file"):
        folder.read((tmp_path / "pipe").as_uri(), 1000)


def test_a_file_can_be_a_source(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("one")
    (tmp_path / "two.txt").write_text("two")
    folder = Folder(tmp_path / "one.txt")
    [entry] = folder.entries()
    assert isinstance(entry, Entry)
    assert folder.read(entry.uri, 1000).data == b"one"
    with pytest.raises(Missing):
        folder.read((tmp_path / "two.txt").as_uri(), 1000)


def test_parkways_own_home_is_passed_over(tmp_path: Path) -> None:
    home = tmp_path / "project" / "home"
    (home / "logs").mkdir(parents=True)
    (home / "first.key").write_text("the key")
    (tmp_path / "project" / "a.txt").write_text("a")
    (tmp_path / "linked").symlink_to(tmp_path / "project")
    for root in (tmp_path / "project", tmp_path / "linked"):
        folder = Folder(root, home=home)
        assert set(names(folder)) == {"a.txt"}
        assert not list(folder.at(root / "home" / "first.key"))
        assert not list(folder.at(root / "home"))
        assert not list(Folder(root, home=home, patterns=Patterns(["*.key"])).entries())
    with pytest.raises(SourceUnavailable, match="home"):
        list(Folder(home, home=home).entries())


def test_a_folder_that_is_not_there_says_nothing_of_its_documents(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "unmounted")
    with pytest.raises(SourceUnavailable):
        list(folder.entries())
    with pytest.raises(SourceUnavailable):
        list(folder.at(tmp_path / "unmounted/a.txt"))
    with pytest.raises(SourceUnavailable):
        folder.read((tmp_path / "unmounted/a.txt").as_uri(), 1000)


def test_a_folder_that_may_not_be_read_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "open.txt").write_text("a")
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if path.name == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("os.scandir", refuse)
    found = list(Folder(tmp_path).entries())
    assert Unknown((tmp_path / "locked").as_uri() + "/", "Permission denied") in found
    assert len(found) == 2
