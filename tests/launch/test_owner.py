"""The owner of the documents under `parkway up`, as real processes: started when it is needed, killed, restarted."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from tests.launch.stage import Up, parkway, processes_of, up, wait_until

pytest.importorskip("parkway.retrieval.catalogue", reason="the catalogue of documents is not here")
pytest.importorskip("parkway.retrieval.search", reason="the search is not here")


@pytest.fixture(scope="module", params=[1, 2], ids=["whole", "two partitions"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    settings = {"models": {}, "knowledge_partitions": request.param}
    with up(tmp_path_factory.mktemp("owner") / "home", settings) as started:
        yield started.ready()


@pytest.fixture(scope="module")
def birds(running: Up, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is a collection of that name."""
    folder = tmp_path_factory.mktemp("birds")
    for name in ("kingfisher", "wren", "zebra finch", "heron"):
        (folder / f"{name}.md").write_text(f"# Birds\n\nThe {name} is a bird.\n")
    assert running.child("knowledge-owner") is None, "nobody needs it yet"
    done = parkway(running.home, "knowledge", "add", "birds", str(folder))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "birds: 4 of 4 documents indexed, 4 passages\n"
    return folder


def search(running: Up, query: str, collection: str = "birds", *, patient: bool = False, **more: Any) -> list[str]:
    """The ends of the URIs of what is found."""
    response = running.request("POST", f"/v1/knowledge/{collection}/search", {"query": query, **more})
    told = json.loads(response.read())
    if response.status == 503 and patient:
        return []  # it has not been ready since Parkway was started
    assert response.status == 200, told
    return [hit["uri"].rsplit("/", 1)[-1] for hit in told["hits"]]


def found(running: Up, query: str, name: str) -> bool:
    return search(running, query)[:1] == [name]


def test_a_folder_is_found_and_followed(running: Up, birds: Path) -> None:
    assert found(running, "kingfisher", "kingfisher.md")
    assert len(search(running, "bird")) == 4
    told = json.loads(running.request("POST", "/v1/knowledge/birds/search", {"query": "bird"}).read())
    assert told["cached"], "nothing has changed since"
    (birds / "owl.md").write_text("An owl hunts at night.\n")
    wait_until(lambda: found(running, "owl at night", "owl.md"), "the new document")
    (birds / "owl.md").unlink()
    wait_until(lambda: not found(running, "owl at night", "owl.md"), "its end")


def test_a_killed_owner_comes_back_and_nobody_is_refused(running: Up, birds: Path) -> None:
    assert found(running, "wren", "wren.md")
    before = running.child("knowledge-owner")
    assert before is not None
    os.kill(before, signal.SIGKILL)
    assert found(running, "wren", "wren.md"), "it waits for the next one"


def test_what_is_sent_outlives_a_kill_and_goes_when_it_is_removed(running: Up, birds: Path) -> None:
    assert running.request("PUT", "/v1/knowledge/sent", {"access": ["*"]}).status == 200
    for name in "abcdef":
        assert running.request("PUT", f"/v1/knowledge/sent/documents/{name}.txt", f"letter {name}{name}").status == 200
    wait_until(lambda: len(search(running, "letter", "sent")) == 6, "all of them")
    for pid in [pid for pid in processes_of(running.home) if b"knowledge-owner" in _words(pid)]:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(search(running, "letter", "sent")) == 6, "all of them again")
    assert running.request("DELETE", "/v1/knowledge/sent/documents/a.txt").status == 200
    assert "a.txt" not in search(running, "letter", "sent")
    assert running.request("DELETE", "/v1/knowledge/sent").status == 200
    assert running.request("POST", "/v1/knowledge/sent/search", {"query": "letter"}).status == 404
    wait_until(lambda: not (running.home / "knowledge/sent").exists(), "the end of its files")


def test_who_may_see_what_is_decided_in_the_search(running: Up, birds: Path) -> None:
    for name, access in (("all", "*"), ("ann", "user:ann"), ("team", "team:people")):
        path = f"/v1/knowledge/birds/documents/{name}.txt?access={quote(access)}"
        assert running.request("PUT", path, f"The salary of {name}.").status == 200
    made = parkway(running.home, "key", "create", "anns", "--owner", "ann", "--json")
    ann = json.loads(made.stdout)["key"]
    wait_until(lambda: "all.txt" in search(running, "salary"), "the documents")
    wait_until(lambda: _status(running, "birds")["waiting"] == 0, "all of them")
    assert not {"ann.txt", "team.txt"} & set(search(running, "salary", limit=100))

    def of_ann() -> set[str]:
        response = _asked(running, ann, "/v1/knowledge/birds/search", {"query": "salary", "limit": 100})
        return {hit["uri"] for hit in response.get("hits", [])}

    wait_until(lambda: {"all.txt", "ann.txt"} <= of_ann(), "what ann may see")
    assert "team.txt" not in of_ann()


def test_the_port_is_told_and_the_token_is_needed(running: Up, birds: Path) -> None:
    pid = running.child("gateway")
    assert pid is not None
    told = dict(part.split(b"=", 1) for part in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if b"=" in part)
    for url in told[b"PARKWAY_KNOWLEDGE"].decode().split(","):
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
        connection.request("GET", "/collections")
        assert connection.getresponse().status == 401


def test_a_collection_gets_rankers_of_its_own_while_it_is_searched(
    running: Up, birds: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if "two partitions" in request.node.name:
        pytest.skip("what is trained is the same")
    names = ("kingfisher", "wren", "heron")
    questions = [{"query": f"question {at} on the {names[at % 3]}", "relevant": [f"{names[at % 3]}.md"]}
                 for at in range(24)]  # fmt: skip
    gold = tmp_path / "gold.jsonl"
    gold.write_text("\n".join(map(json.dumps, questions)))

    def train(*words: str) -> subprocess.CompletedProcess[str]:
        return parkway(running.home, "knowledge", "train-ranker", "birds", *words)

    def explained() -> set[str]:
        response = running.request("POST", "/v1/knowledge/birds/search", {"query": "wren", "explain": True})
        return {name for hit in json.loads(response.read())["hits"] for name in hit["explanation"]}

    done = train(str(gold))
    assert (done.returncode, done.stderr) == (1, "")
    assert "5 questions that were held out of 24" in done.stdout
    assert "not used: +0.000 (+0.000 to +0.000) in nDCG@10" in done.stdout
    assert not (running.home / "knowledge/birds/ranker").exists()
    done = train(str(gold), "--kind", "cross-encoder", "--minutes", "0.02", "--threads", "1", "--force")
    assert done.returncode == 0, done.stderr
    assert "cross_encoder" in explained()
    assert found(running, "wren", "wren.md")
    assert train("--forget").stdout == "birds is ranked by what Parkway comes with\n"
    assert "cross_encoder" not in explained()
    assert train("--forget", str(gold)).returncode == 2


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("A document.")
    home = tmp_path / "home"
    with up(home, {"models": {}}) as started:
        started.ready()
        assert parkway(home, "knowledge", "add", "docs", str(tmp_path / "a.md")).returncode == 0
        started.process.terminate()
        assert started.wait() == 0
        assert "killed" not in started.told()
        assert not processes_of(home)
    with up(home, {"models": {}}) as again:
        again.ready()
        wait_until(lambda: search(again, "document", "docs", patient=True) == ["a.md"], "it to be opened again")
        again.process.kill()
        again.wait()
        wait_until(lambda: not processes_of(home), "the end of every process of this home")


def _words(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def _status(running: Up, name: str) -> dict[str, Any]:
    return json.loads(running.request("GET", f"/v1/knowledge/{name}").read())


def _asked(running: Up, key: str, path: str, body: object) -> dict[str, Any]:
    connection = http.client.HTTPConnection(str(urlsplit(running.url).netloc), timeout=60)
    connection.request("POST", path, json.dumps(body), {"authorization": f"Bearer {key}"})
    return json.loads(connection.getresponse().read())
