"""Replicas beside the owners of two partitions, as real processes: they find the same, and need no owner for it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from parkway.core.errors import IndexUnavailable
from parkway.retrieval.catalogue import Partition
from parkway.retrieval.index.config import IndexConfig
from parkway.retrieval.index.edge import EdgeIndex
from parkway.retrieval.index.replica import MAX_LAG_S
from parkway.router.knowledge import places_of
from tests.launch.stage import Up, parkway, processes_of, up, wait_until

BIRDS = [
    *("kingfisher", "wren", "finch", "heron", "owl", "lark", "robin", "swift", "stork", "crane"),
    *("eagle", "falcon", "gull", "tern", "plover", "snipe", "magpie", "raven", "crow", "jay"),
]
SECOND = Partition(1, 2)
DIMENSIONS = 384


@dataclass(frozen=True)
class Replicated:
    """Two owners and two replicas; `birds` are documents of a folder.

    Attributes:
        owner, replicas: URLs of the processes that answer searches.
    """

    running: Up
    folder: Path
    owner: str
    replicas: list[str]
    token: str

    def find(self, url: str, query: str, collection: str = "birds") -> list[dict[str, Any]]:
        """The hits of one process; none where it does not answer such a question now."""
        connection = http.client.HTTPConnection(str(urlsplit(url).netloc), timeout=30)
        body = json.dumps({"search": {"query": query, "limit": 50}, "principals": ["key:first"]})
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        try:
            connection.request("POST", f"/collections/{collection}/search", body, headers)
            response = connection.getresponse()
            told = json.loads(response.read())
        except (OSError, http.client.HTTPException):
            return []  # it has not been ready yet, or was killed
        finally:
            connection.close()
        return told["hits"] if response.status == 200 else []

    def names(self, url: str, query: str, collection: str = "birds") -> set[str]:
        return {Path(hit["uri"]).stem for hit in self.find(url, query, collection)}

    def lags_s(self) -> dict[tuple[int, int], float]:
        """By replica and partition."""
        status = json.loads(self.running.request("GET", "/v1/knowledge/birds").read())
        return {(each["replica"], each["partition"]): each["lag_s"] for each in status["replica_lags"]}

    def figure(self, name: str) -> float:
        lines = self.running.request("GET", "/metrics").read().decode().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), -1.0)

    def pid(self, *, partition: int = 0, replica: int = 0) -> int | None:
        """Of the owner of a partition, or of a replica."""
        wanted = (b"%d" % partition, b"%d" % replica)
        for pid in processes_of(self.running.home):
            words = _read(pid, "cmdline").split(b"\0")
            if b"knowledge-owner" in words:
                options = dict(pairwise(words))
                if (options[b"--partition"], options[b"--replica"]) == wanted:
                    return pid
        return None

    def send(self, what: signal.Signals, **which: int) -> None:
        pid = self.pid(**which)
        assert pid is not None
        os.kill(pid, what)


@pytest.fixture(scope="module")
def replicated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicated]:
    place = tmp_path_factory.mktemp("replicas")
    folder = place / "birds"
    folder.mkdir()
    for name in BIRDS:
        (folder / f"{name}.md").write_text(f"The {name} is a bird.\n")
    birds = {"sources": [{"path": str(folder)}], "search": {"duplicates": False}}
    settings = {
        "models": {}, "knowledge_partitions": 2, "knowledge_replicas": 2, "liveness_s": 3600,
        "limits": {"rate_per_s": 10_000, "burst": 10_000}, "knowledge": {"birds": birds},
    }  # fmt: skip
    with up(place / "home", settings) as running:
        running.ready()
        gateway = running.child("gateway")
        assert gateway is not None
        told = dict(part.split("=", 1) for part in _read(gateway, "environ").decode().split("\0") if "=" in part)
        (owner, *replicas), _ = places_of(told["PARKWAY_KNOWLEDGE"])
        made = Replicated(running, folder, owner, replicas, told["PARKWAY_ENGINE_TOKEN"])
        for url in replicas:
            wait_until(lambda url=url: made.names(url, "bird") == set(BIRDS), "a replica to have all of them")
        yield made


@pytest.fixture(scope="module")
def left(replicated: Replicated) -> set[str]:
    """The documents that stay when one of each partition is removed, which they are once the owners say so."""
    hits = replicated.find(replicated.owner, "bird")
    gone = {SECOND.has(hit["document_id"]): Path(hit["uri"]).stem for hit in hits}
    assert len(gone) == 2
    for name in gone.values():
        (replicated.folder / f"{name}.md").unlink()
    left = set(BIRDS) - set(gone.values())
    wait_until(lambda: replicated.names(replicated.owner, "bird") == left, "the owners to remove them")
    return left


def test_they_find_what_the_owners_find(replicated: Replicated) -> None:
    for query in ("the kingfisher", "a bird at night", "raven or crow"):
        hits = replicated.find(replicated.owner, query)
        assert {SECOND.has(hit["document_id"]) for hit in hits} == {True, False}
        for url in replicated.replicas:
            for found in (replicated.find(url, query), replicated.find(url, query)):
                assert found == hits


def test_they_are_seen_and_counted(replicated: Replicated) -> None:
    running = replicated.running
    every = [(replica, partition) for replica in (1, 2) for partition in (0, 1)]
    wait_until(lambda: [at for at, lag_s in replicated.lags_s().items() if lag_s < MAX_LAG_S] == every, "lags")
    assert "  replica 2, partition 1: " in parkway(running.home, "knowledge", "status", "birds").stdout
    for replica, partition in every:
        lag = f'parkway_knowledge_replica_lag_seconds{{partition="{partition}",replica="{replica}"}}'
        wait_until(lambda lag=lag: 0 <= replicated.figure(lag) < MAX_LAG_S, lag)
    figures = {each: f'parkway_knowledge_cache_total{{cache="results",result="{each}"}}' for each in ("hit", "miss")}
    hits, misses = (replicated.figure(each) for each in figures.values())
    for _ in range(3):
        replicated.find(replicated.replicas[1], "what is counted")
    wait_until(lambda: replicated.figure(figures["hit"]) >= hits + 2, "hits of a replica")
    assert replicated.figure(figures["miss"]) >= misses + 1

    told = json.loads(parkway(running.home, "ps", "--json").stdout)
    shown = {each["name"]: each["memory_bytes"] for each in told["models"]}
    assert sorted(shown) == ["knowledge 0", "knowledge 1", "knowledge replica 1", "knowledge replica 2"]
    assert min(shown.values()) > 50_000_000
    assert told["used_bytes"] > 0.8 * sum(shown.values())


def test_they_need_no_owner(replicated: Replicated) -> None:
    for partition in (0, 1):
        replicated.send(signal.SIGSTOP, partition=partition)
    for url in replicated.replicas:
        assert replicated.names(url, "a bird that nobody has asked for") == set(BIRDS)
    for partition in (0, 1):
        replicated.send(signal.SIGCONT, partition=partition)


def test_what_is_removed_is_found_no_more(replicated: Replicated, left: set[str]) -> None:
    removed = time.monotonic()
    for url in replicated.replicas:
        while not replicated.names(url, "bird") <= left:
            assert time.monotonic() - removed < MAX_LAG_S, "one that is so far behind does not answer"
        wait_until(lambda url=url: replicated.names(url, "bird") == left, "the others")


def test_no_search_fails_while_owners_and_replicas_are_killed(replicated: Replicated, left: set[str]) -> None:
    running, stop = replicated.running, threading.Event()
    seen: list[tuple[int, int]] = []

    def ask() -> None:
        while not stop.wait(0.02):
            body = {"query": f"bird number {len(seen)}", "limit": 50}
            response = running.request("POST", "/v1/knowledge/birds/search", body)
            seen.append((response.status, len(json.loads(response.read()).get("hits", []))))

    def some_more() -> None:
        asked = len(seen)
        wait_until(lambda: len(seen) > asked + 5, "searches")

    asking = [threading.Thread(target=ask, daemon=True) for _ in range(2)]
    for thread in asking:
        thread.start()
    index = running.home / "knowledge/birds/1"
    before = copies_in(index)
    os.kill(running.process.pid, signal.SIGSTOP)  # nobody starts the next owner
    replicated.send(signal.SIGKILL, partition=1)
    optimised: list[bool] = []
    wait_until(lambda: optimise(index, optimised), "its end")
    assert optimised == [True]
    some_more()
    os.kill(running.process.pid, signal.SIGCONT)
    for which in ({"partition": 0}, {"replica": 1}):
        replicated.send(signal.SIGKILL, **which)
        some_more()
    for url in [replicated.owner, *replicated.replicas]:
        wait_until(lambda url=url: replicated.names(url, "bird") == left, "all of them to be back")
    stop.set()
    for thread in asking:
        thread.join()
    assert set(seen) == {(200, len(left))}

    wait_until(lambda: len(copies_in(index)) == 2 and not copies_in(index) & before, "copies of the next generation")
    for path in index.glob("replicas/*/generation-*/**/*"):
        assert not path.is_file() or not any(name.encode() in path.read_bytes() for name in set(BIRDS) - left), path
    new = {f"new bird {at}" for at in range(20)}
    for name in new:
        (replicated.folder / f"{name}.md").write_text(f"The {name} comes after them.\n")
    for url in replicated.replicas:
        wait_until(lambda url=url: replicated.names(url, "bird") == left | new, "what the next owners have taken in")


def test_a_collection_that_is_made_again_is_another_one(replicated: Replicated) -> None:
    running = replicated.running
    for life in ("first", "second"):
        running.request("DELETE", "/v1/knowledge/sent")
        assert running.request("PUT", "/v1/knowledge/sent", {"access": ["*"]}).status == 200
        names = {f"{life} {letter}" for letter in "abcdef"}
        for name in names:
            path = f"/v1/knowledge/sent/documents/{quote(name)}.txt"
            assert running.request("PUT", path, f"The {name} is a letter.").status == 200
        for url in [replicated.owner, *replicated.replicas]:
            wait_until(lambda url=url, names=names: replicated.names(url, "letter", "sent") == names, life)


def optimise(directory: Path, optimised: list[bool]) -> bool:
    """Makes the next generation of an index, if nobody has it any more."""
    with suppress(IndexUnavailable), closing(EdgeIndex(directory, IndexConfig(), DIMENSIONS)) as index:
        optimised.append(index.optimise())
    return bool(optimised)


def copies_in(index: Path) -> set[str]:
    return {path.name for path in index.glob("replicas/*/generation-*")}


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
