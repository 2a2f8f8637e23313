"""Collections that are configured, under a real `parkway up`, and what becomes of a changed file."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from parkway.retrieval.index.config import IndexConfig
from parkway.retrieval.index.edge import EdgeIndex
from tests.launch.stage import Up, environment, parkway, up, wait_until

BIRDS = ("kingfisher", "wren", "zebra finch", "heron")
SQL = "SELECT id, title, body AS text, area, readers AS access FROM articles"


class Configured:
    """A running Parkway and its file."""

    def __init__(self, running: Up, settings: dict[str, Any], folder: Path) -> None:
        self.running = running
        self.settings = settings
        self.folder = folder

    def write(self, **changes: Any) -> None:
        """Edits collections, as an editor does; None takes one out."""
        knowledge = {**self.settings["knowledge"], **changes}
        self.settings["knowledge"] = {name: each for name, each in knowledge.items() if each is not None}
        fresh = self.running.config.with_suffix(".tmp")
        fresh.write_text(json.dumps(self.settings))
        fresh.replace(self.running.config)

    def search(self, name: str, query: str, **more: Any) -> dict[str, Any]:
        response = self.running.request("POST", f"/v1/knowledge/{name}/search", {"query": query, **more})
        return json.loads(response.read())

    def uris(self, name: str, query: str, **more: Any) -> list[str]:
        return [hit["uri"] for hit in self.search(name, query, **more).get("hits", [])]

    def status(self, name: str) -> dict[str, Any]:
        return json.loads(self.running.request("GET", f"/v1/knowledge/{name}").read())

    def indexed(self, name: str, count: int) -> bool:
        return self.status(name).get("indexed") == count

    def ask(self, question: str) -> dict[str, Any]:
        body = {
            "model": "mini",
            "messages": [{"role": "user", "content": question}],
            "knowledge": ["birds"],
            "max_tokens": 1,
        }
        return json.loads(self.running.request("POST", "/v1/chat/completions", body).read())


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Configured]:
    place = tmp_path_factory.mktemp("configured")
    folder = place / "birds"
    folder.mkdir()
    for name in BIRDS:
        (folder / f"{name}.md").write_text(f"# Birds\n\nThe {name} is a bird.\n")
    with sqlite3.connect(place / "articles.db") as articles:
        articles.execute("CREATE TABLE articles (id, title, body, area, readers)")
        rows = [(1, "Leases", "A lease ends after ten years.", "law", ""), (2, "Bread", "Bread rises.", "food", "*")]
        articles.executemany("INSERT INTO articles VALUES (?, ?, ?, ?, ?)", rows)
        articles.execute("UPDATE articles SET readers = 'team:legal, key:first' WHERE id = 1")
    articles.close()
    mini = {"path": "park-mini", "grounding": {"tier": "generated", "min_confidence": 0, "check": "off"}}
    query = {"name": "articles", "url_env": "ARTICLES_URL", "sql": SQL}
    settings: dict[str, Any] = {
        "models": {"mini": mini},
        "limits": {"rate_per_s": 10_000, "burst": 10_000},  # it is asked again and again
        "knowledge": {
            "birds": {"sources": [{"path": str(folder), "metadata": {"kind": "bird"}}]},
            "articles": {"sources": [{"query": query, "rescan_s": 1}]},
        },
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ARTICLES_URL", f"sqlite:///{place}/articles.db")
        with up(place / "home", settings) as running:
            made = Configured(running.ready(), settings, folder)
            wait_until(lambda: made.indexed("birds", 4) and made.indexed("articles", 2), "what is configured")
            yield made


def test_folders_and_rows_are_found_under_names_that_say_nothing_of_the_machine(configured: Configured) -> None:
    assert configured.uris("birds", "kingfisher")[0] == "birds/kingfisher.md"
    assert "birds/zebra finch.md" in configured.uris("birds", "zebra finch")
    listed = json.loads(configured.running.request("GET", "/v1/knowledge/birds/documents").read())
    assert {each["uri"] for each in listed["data"]} == {f"birds/{name}.md" for name in BIRDS}
    assert configured.uris("articles", "bread rises", filter={"area": "food"}) == ["sql:articles/2"]
    assert configured.uris("articles", "lease", filter={"area": "food"}) == ["sql:articles/2"]
    cited = configured.ask("What is a wren?")["parkway"]
    assert "file:" not in json.dumps(cited)


def test_its_owner_is_shown_and_counts_against_the_memory(configured: Configured) -> None:
    told = json.loads(parkway(configured.running.home, "ps", "--json").stdout)
    shown = {each["name"]: each for each in told["models"]}
    assert (shown["knowledge"]["state"], shown["knowledge"]["load"]) == ("ready", "start")
    assert shown["knowledge"]["memory_bytes"] > 50_000_000
    assert told["used_bytes"] >= shown["knowledge"]["memory_bytes"] + shown["mini"]["memory_bytes"] * 0.5


def test_what_was_found_is_kept_until_a_document_changes(configured: Configured) -> None:
    first = configured.search("birds", "a bird that is a heron")
    again = configured.search("birds", "a bird that is a heron")
    assert (first.get("cached"), again["cached"], again["hits"]) == (None, True, first["hits"])
    new = configured.folder / "night heron.md"
    new.write_text("The night heron is a bird that is a heron.\n")
    wait_until(lambda: configured.uris("birds", "a bird that is a heron")[:1] == ["birds/night heron.md"], "the heron")
    new.unlink()
    wait_until(lambda: "birds/night heron.md" not in configured.uris("birds", "a bird that is a heron"), "its end")
    wait_until(
        lambda: _figure(configured, 'parkway_knowledge_cache_total{cache="results",result="hit"}') > 0, "figures"
    )
    for name in ("documents", "passages"):
        indexed = f'parkway_{name}{{collection="birds",state="indexed"}}'
        wait_until(lambda figure=indexed: _figure(configured, figure) == 4, indexed)
    assert _figure(configured, 'parkway_knowledge_cache_total{cache="vectors",result="miss"}') > 0
    assert _figure(configured, 'parkway_search_seconds_count{stage="search"}') > 0


def test_a_second_question_about_the_same_passages_reads_them_from_the_engines_cache(configured: Configured) -> None:
    first = configured.ask("What is a heron?")["usage"]
    second = configured.ask("What is a wren?")["usage"]
    assert second["prompt_tokens"] > 300
    assert second["prompt_tokens_details"]["cached_tokens"] > 0.6 * first["prompt_tokens"], (first, second)


def test_metadata_of_what_is_sent_and_added_can_be_searched_by(configured: Configured, tmp_path: Path) -> None:
    running, about = configured.running, quote('{"year": 2026, "tags": ["a", "b"]}')
    assert running.request("PUT", f"/v1/knowledge/birds/documents/owl.txt?metadata={about}", "An owl.").status == 200
    wait_until(lambda: configured.uris("birds", "owl", filter={"year": {"gte": 2020}}) == ["owl.txt"], "the owl")
    assert configured.uris("birds", "owl", filter={"tags": "b", "year": 2026}) == ["owl.txt"]
    assert running.request("DELETE", "/v1/knowledge/birds/documents/owl.txt").status == 200
    (tmp_path / "note.md").write_text("A note about owls.")
    done = parkway(running.home, "knowledge", "add", "notes", str(tmp_path / "note.md"), "--metadata", "year=2027")
    assert done.returncode == 0, done.stderr
    assert configured.uris("notes", "owls", filter={"year": 2027}) == ["note.md"]
    refused = parkway(running.home, "knowledge", "add", "birds", str(tmp_path))
    assert refused.returncode == 3
    assert "stands in parkway.yaml" in refused.stderr
    refused = parkway(running.home, "knowledge", "add", "Bad Name", str(tmp_path))
    assert refused.returncode == 2
    assert "begins with a letter or a digit" in refused.stderr


def test_a_changed_file_is_followed_whole_or_not_at_all(configured: Configured, tmp_path: Path) -> None:
    running = configured.running
    (tmp_path / "fish").mkdir()
    (tmp_path / "fish/eel.md").write_text("An eel is a fish.\n")
    birds = configured.settings["knowledge"]["birds"]
    configured.write(fish=str(tmp_path / "fish"), birds={**birds, "search": {"cache_bytes": 0}, "metadata": {"n": 7}})
    wait_until(lambda: configured.uris("fish", "eel") == ["fish/eel.md"], "a new collection")
    wait_until(lambda: len(configured.uris("birds", "bird", filter={"n": 7})) == 4, "other metadata")
    assert "cached" not in configured.search("birds", "wren")
    assert "cached" not in configured.search("birds", "wren")

    # What an encoder cannot read only its owner knows: all of it stays as it was.
    configured.write(fish=None, birds={**birds, "chunking": {"max_tokens": 8000}, "metadata": {"n": 8}})
    wait_until(lambda: any("max_tokens" in each for each in configured.status("birds")["trouble"]), "its refusal")
    assert configured.uris("birds", "bird", filter={"n": 8}) == []
    assert len(configured.uris("birds", "bird", filter={"n": 7})) == 4
    wait_until(lambda: _figure(configured, "parkway_configuration_valid") == 0, "the figure")

    wait_until(lambda: "knowledge: the configuration cannot be used" in running.told(), "word of it at the terminal")
    [said] = [line for line in running.told().splitlines() if "chunks of up to 8000" in line]
    assert said.endswith(f"; change it in {running.config}")

    configured.write(birds={**birds, "search": {"depth": 0}})
    wait_until(lambda: "knowledge.birds.search.depth" in running.told(), "what is wrong in the file")

    # What cannot change while a collection is open waits; the rest is in force.
    configured.write(birds={**birds, "metadata": {"n": 9}, "index": {"language": "german"}})
    wait_until(lambda: len(configured.uris("birds", "bird", filter={"n": 9})) == 4, "other metadata again")
    wait_until(lambda: "takes effect at the next start: knowledge.birds.index.language" in running.told(), "word of it")
    assert configured.status("birds")["trouble"] == []
    wait_until(lambda: "the configuration is right again" in running.told(), "word of that, too")
    assert configured.uris("fish", "eel") == ["fish/eel.md"], "it stays until it is removed"
    assert running.request("DELETE", "/v1/knowledge/fish").status == 200
    assert running.request("DELETE", "/v1/knowledge/birds").status == 409


def test_what_others_refuse_is_told_at_the_terminal_once(configured: Configured, tmp_path: Path) -> None:
    running, birds = configured.running, configured.settings["knowledge"]["birds"]
    guardrail = {"name": "private", "check": "personal_data", "on": "input", "action": "block"}
    before = len(running.told())
    configured.settings["guardrails"] = [guardrail, guardrail]
    configured.write(birds={**birds, "sources": [*birds["sources"], str(tmp_path / "nowhere")]})

    def said() -> list[str]:
        return [line.partition(" ")[2] for line in running.told()[before:].splitlines()]

    missing = f"the source {tmp_path}/nowhere of the collection birds"
    wait_until(lambda: any("is the name of two" in line for line in said()), "a gateway's refusal")
    wait_until(
        lambda: any(line.startswith(f"knowledge: {missing} cannot be looked") for line in said()), "the source's"
    )
    del configured.settings["guardrails"]
    configured.write(birds=birds)
    over = {f"{missing} is right again", "the configuration is right again"}
    wait_until(lambda: over <= {*said()}, "the end of both")
    configured.write(birds={**birds, "search": {"depth": -1}})  # which all of them find
    wait_until(lambda: any("search.depth" in line for line in said()), "what is wrong in the file")
    configured.write(birds=birds)
    wait_until(lambda: said().count("the configuration is right again") == 2, "its end")
    assert [line.count("search.depth") for line in said()].count(1) == 1
    assert sum("is the name of two" in line for line in said()) == 1


def test_a_ranker_is_trained_by_questions_of_which_some_do_not_fit_and_without_torch(
    configured: Configured, tmp_path: Path
) -> None:
    gold = tmp_path / "gold.jsonl"
    asked = [(f"{what} {name}?", f"birds/{name}.md") for what in ("a", "which", "the", "any", "one") for name in BIRDS]
    lines = [{"query": query, "relevant": [uri]} for query, uri in [*asked, ("what wren?", "birds/wrne.md")]]
    gold.write_text("\n".join(map(json.dumps, lines)))
    program = "import sys; from parkway.cli.main import run; print(run(sys.argv[1:]), 'torch' in sys.modules)"
    words = ["knowledge", "train-ranker", "birds", str(gold)]
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        capture_output=True,
        text=True,
        env=environment(configured.running.home),
    )
    assert "1 of 21 questions name documents that birds does not have" in done.stderr
    assert 'did you mean "birds/wren.md"?' in done.stderr
    assert "not used: +0.000" in done.stdout, done
    assert done.stdout.splitlines()[-1] == "1 False"


def test_a_collection_that_its_index_was_not_made_for_is_told_and_can_be_put_right(tmp_path: Path) -> None:
    (tmp_path / "birds").mkdir()
    (tmp_path / "birds/wren.md").write_text("The wren is a bird.\n")
    settings: dict[str, Any] = {
        "models": {}, "knowledge_replicas": 1, "knowledge": {"birds": {"sources": [str(tmp_path / "birds")]}},
    }  # fmt: skip
    EdgeIndex(tmp_path / "home/knowledge/birds/0", IndexConfig(language="german"), 384).close()
    with up(tmp_path / "home", settings) as running:
        configured = Configured(running.ready(), settings, tmp_path / "birds")
        wrong = "knowledge: the collection birds cannot be as it is configured: the index in "
        wait_until(lambda: wrong in running.told(), "word of it")
        [said] = [line for line in running.told().splitlines() if "the collection birds" in line]
        assert said.endswith(f"have the documents indexed anew; change it in {running.config}")
        configured.write(birds={**settings["knowledge"]["birds"], "index": {"language": "german"}})
        wait_until(lambda: configured.uris("birds", "wren") == ["birds/wren.md"], "the wren")
        wait_until(lambda: "the collection birds is right again" in running.told(), "word of that")
        assert running.told().count("the collection birds") == 2
        assert "at the next start" not in running.told()


def _figure(configured: Configured, name: str) -> float:
    """Of `/metrics`; 0 where it is not there."""
    text = configured.running.request("GET", "/metrics").read().decode()
    return next((float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name} ")), 0.0)
