"""`/v1/knowledge` through the real gateway, in front of an owner whose library is in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from urllib.parse import quote

import aiohttp
import pytest
from sqlalchemy import select
from yarl import URL

from parkway.core.errors import IndexUnavailable
from parkway.feedback.stats import stats
from parkway.launch.settings import Settings
from parkway.policy.chain import decode_entry
from parkway.policy.keys import KeyStore
from parkway.store import schema
from tests.gateway.conftest import Gate, StartGate
from tests.gateway.shelf import TOKEN, Kept, Shelf, owner


@pytest.fixture
def shelf() -> Shelf:
    return Shelf({
        "handbook": {
            "leave.md": Kept("Thirty days of leave a year.", "text/markdown", ("*",)),
            "salaries.md": Kept("What leave costs us.", "text/markdown", ("team:people", "user:ann")),
        },
        "legal": {"contract.txt": Kept("A contract about leave.", "text/plain", ("*",))},
    })  # fmt: skip


@pytest.fixture
async def gate(start_gate: StartGate, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gate]:
    async with owner(shelf) as url:
        monkeypatch.setenv("PARKWAY_KNOWLEDGE", url)
        monkeypatch.setenv("PARKWAY_ENGINE_TOKEN", TOKEN)
        settings = {"models": {}, "bounds": {"max_document_bytes": 100_000}}
        async with start_gate(Settings.model_validate(settings)) as gate:
            yield gate


async def key(gate: Gate, name: str, *scopes: str, **about: str) -> str:
    """A new key, which the gateway knows."""
    fresh = KeyStore(gate.database).create(name, scopes=scopes or None, **about)[1]
    for _ in range(200):
        if (await gate.get("/v1/models", fresh)).status != 401:
            break
        await asyncio.sleep(0.02)
    return fresh


async def send(gate: Gate, method: str, path: str, data: bytes = b"", **headers: str) -> aiohttp.ClientResponse:
    own = {**gate.headers(), **headers}
    response = await gate.http.request(method, aiohttp_url(gate, path), data=data, headers=own)
    await response.read()
    return response


def aiohttp_url(gate: Gate, path: str) -> URL:
    return URL(gate.url + path, encoded=True)


async def test_a_search_finds_what_the_caller_may_see(gate: Gate, shelf: Shelf) -> None:
    found = await (await gate.post("/v1/knowledge/handbook/search", {"query": "leave"})).json()
    assert [hit["uri"] for hit in found["hits"]] == ["leave.md"]
    assert shelf.asked[-1][2] == {"key:test"}
    ann = await key(gate, "of-ann", owner="ann")
    found = await (await gate.post("/v1/knowledge/handbook/search", {"query": "leave"}, ann)).json()
    assert [hit["uri"] for hit in found["hits"]] == ["leave.md", "salaries.md"]
    people = await key(gate, "of-people", team="people")
    found = await (await gate.post("/v1/knowledge/handbook/search", {"query": "leave"}, people)).json()
    assert [hit["uri"] for hit in found["hits"]] == ["leave.md", "salaries.md"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("GET", "/documents"), ("POST", "/search")],
)
async def test_one_that_is_not_allowed_looks_like_one_that_is_not_there(gate: Gate, method: str, path: str) -> None:
    only = await key(gate, "only", "knowledge:handbook")
    answers = []
    for name in ("legal", "nowhere"):
        request = gate.http.request(
            method, f"{gate.url}/v1/knowledge/{name}{path}", json={"query": "leave"}, headers=gate.headers(only)
        )
        async with request as response:
            body = await response.text()
            length = response.headers["content-length"]
            answers.append((response.status, body.split('"request_id"')[0].replace(name, "NAME"), len(length)))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404
    assert "collection_not_found" in answers[0][1]


@pytest.mark.parametrize("name", ["", "../handbook", "handbook/index", "handbook/replicas/1", "Handbook", "a\nb"])
async def test_a_chat_names_collections_and_no_paths(gate: Gate, shelf: Shelf, name: str) -> None:
    chat = {"model": "none", "messages": [{"role": "user", "content": "What about leave?"}], "knowledge": [name]}
    told = await gate.post("/v1/chat/completions", chat)
    error = (await told.json())["error"]
    assert (told.status, error["code"], error["param"]) == (404, "collection_not_found", "knowledge")
    assert shelf.asked == []


async def test_the_list_has_what_the_caller_may_search(gate: Gate) -> None:
    listed = await (await gate.get("/v1/knowledge")).json()
    assert [each["name"] for each in listed["data"]] == ["handbook", "legal"]
    assert listed["data"][0]["documents"] == 2
    listed = await (await gate.get("/v1/knowledge", await key(gate, "only", "knowledge:legal"))).json()
    assert [each["name"] for each in listed["data"]] == ["legal"]


async def test_only_who_administers_changes_anything(gate: Gate, shelf: Shelf) -> None:
    searcher = await key(gate, "searcher", "knowledge:*")
    for method, path in (
        ("PUT", "/v1/knowledge/new"),
        ("DELETE", "/v1/knowledge/handbook"),
        ("PUT", "/v1/knowledge/handbook/documents/x.md"),
        ("DELETE", "/v1/knowledge/handbook/documents/leave.md"),
    ):
        async with gate.http.request(method, gate.url + path, data=b"x", headers=gate.headers(searcher)) as response:
            assert response.status == 403, (method, path)
    assert set(shelf.kept) == {"handbook", "legal"}
    assert set(shelf.kept["handbook"]) == {"leave.md", "salaries.md"}


async def test_documents_come_and_go(gate: Gate, shelf: Shelf) -> None:
    made = await send(gate, "PUT", "/v1/knowledge/notes", b'{"access": ["team:people"]}')
    assert (made.status, (await made.json())["documents"]) == (200, 0)
    uri = "2026/a name\nof two lines? 100%.txt"
    path = f"/v1/knowledge/notes/documents/{quote(uri, safe='')}"
    sent = await send(gate, "PUT", path, "Blåbær".encode() * 1000, **{"content-type": "text/plain"})
    assert sent.status == 200, await sent.text()
    assert (await sent.json())["bytes"] == 8000
    assert shelf.kept["notes"][uri] == Kept("Blåbær" * 1000, "text/plain", ("team:people",))
    open_to = await send(gate, "PUT", f"{path}2?access=key:ci&access=user:ann", b"x")
    assert open_to.status == 200
    assert shelf.kept["notes"][uri + "2"].access == ("key:ci", "user:ann")
    first = await (await gate.get("/v1/knowledge/notes/documents?limit=1")).json()
    assert (len(first["data"]), first["has_more"]) == (1, True)
    after = first["data"][0]["document_id"]
    second = await (await gate.get(f"/v1/knowledge/notes/documents?after={after}")).json()
    assert (await gate.get("/v1/knowledge/notes/documents?after=%00")).status == 400
    assert (len(second["data"]), second["has_more"]) == (1, False)
    about = quote('{"year": 2026, "tags": ["a", "b"], "draft": false, "weight": 1.5, "area": "law & order"}')
    assert (await send(gate, "PUT", f"{path}3?metadata={about}", b"x")).status == 200
    assert shelf.kept["notes"][uri + "3"].metadata == {
        "year": 2026, "tags": ["a", "b"], "draft": False, "weight": 1.5, "area": "law & order",
    }  # fmt: skip
    assert (await send(gate, "DELETE", f"{path}3")).status == 200
    assert {first["data"][0]["uri"], second["data"][0]["uri"]} == {uri, uri + "2"}
    assert (await send(gate, "DELETE", path)).status == 200
    assert (await (await send(gate, "DELETE", path)).json())["error"]["code"] == "document_not_found"
    assert (await send(gate, "DELETE", "/v1/knowledge/notes")).status == 200
    assert (await send(gate, "DELETE", "/v1/knowledge/notes")).status == 404


@pytest.mark.parametrize("metadata", ["", "{", "[]", '{"a": null}', '{"a": {}}', '{"": 1}', '{"a": [1]}'])
async def test_metadata_that_no_filter_could_compare_is_told(gate: Gate, shelf: Shelf, metadata: str) -> None:
    told = await send(gate, "PUT", f"/v1/knowledge/legal/documents/x?metadata={quote(metadata)}", b"x")
    assert (told.status, (await told.json())["error"]["param"]) == (400, "metadata")
    assert "x" not in shelf.kept["legal"]


async def test_making_one_that_is_there_opens_it_to_nobody(gate: Gate, shelf: Shelf) -> None:
    await send(gate, "PUT", "/v1/knowledge/legal", b'{"access": ["team:people"]}')
    for nothing in (b"", b"{}"):
        assert (await send(gate, "PUT", "/v1/knowledge/legal", nothing)).status == 200
        assert shelf.access["legal"] == ["team:people"]
    assert (await send(gate, "PUT", "/v1/knowledge/legal", b'{"access": []}')).status == 400
    assert shelf.access["legal"] == ["team:people"], "a list that came out empty means nobody, and not everybody"


async def test_where_documents_lie_is_for_administrators(gate: Gate) -> None:
    reader = await key(gate, "reader", "knowledge:*")
    for who, sources in ((None, ["/srv/secret"]), (reader, [])):
        shown = await (await gate.get("/v1/knowledge/legal", who)).json()
        listed = (await (await gate.get("/v1/knowledge", who)).json())["data"][0]
        assert shown["sources"] == listed["sources"] == sources
        assert bool(shown["trouble"]) == bool(listed["trouble"]) == bool(sources)
        documents = (await (await gate.get("/v1/knowledge/legal/documents", who)).json())["data"]
        assert [bool(each.get("reason")) for each in documents] == [bool(sources)]


async def test_the_list_of_documents_has_what_the_caller_may_see(gate: Gate) -> None:
    reader = await key(gate, "reader", "knowledge:*")
    listed = await (await gate.get("/v1/knowledge/handbook/documents", reader)).json()
    assert [each["uri"] for each in listed["data"]] == ["leave.md"]
    listed = await (await gate.get("/v1/knowledge/handbook/documents")).json()
    assert {each["uri"] for each in listed["data"]} == {"leave.md", "salaries.md"}
    for who, count in ((reader, 1), (None, 2)):
        shown = await (await gate.get("/v1/knowledge/handbook", who)).json()
        everything = (await (await gate.get("/v1/knowledge", who)).json())["data"]
        assert shown["documents"] == everything[0]["documents"] == count


async def test_a_document_that_is_too_large_changes_nothing(gate: Gate, shelf: Shelf) -> None:
    told = await send(gate, "PUT", "/v1/knowledge/legal/documents/big", b"x" * 100_001)
    assert told.status == 413
    assert "bounds.max_document_bytes" in await told.text()

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 10_000

    async with gate.http.put(
        f"{gate.url}/v1/knowledge/legal/documents/big", data=pieces(), headers=gate.headers()
    ) as told:
        assert told.status == 413
    assert "big" not in shelf.kept["legal"]


@pytest.mark.parametrize("name", ["UPPER", "a%20b", "-a", "a" * 65, "..%2Fb"])
async def test_a_name_that_cannot_be_is_told(gate: Gate, name: str) -> None:
    assert (await send(gate, "PUT", f"/v1/knowledge/{name}")).status in (400, 404, 405)
    assert (await send(gate, "POST", f"/v1/knowledge/{name}/search", b'{"query": "x"}')).status in (404, 405)


@pytest.mark.parametrize(
    "body", [{}, {"query": ""}, {"query": "x", "limit": 0}, {"query": "x", "unknown": 1}, {"query": "x" * 8193}]
)
async def test_a_wrong_search_is_told(gate: Gate, body: dict[str, object]) -> None:
    answer = await gate.post("/v1/knowledge/handbook/search", body)
    assert answer.status == 400
    assert (await answer.json())["error"]["param"]


async def test_a_search_costs_a_request_and_the_tokens_of_its_query(
    start_gate: StartGate, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with owner(shelf) as url:
        monkeypatch.setenv("PARKWAY_KNOWLEDGE", url)
        monkeypatch.setenv("PARKWAY_ENGINE_TOKEN", TOKEN)
        limits = {"tokens_per_minute": 100, "requests_per_day": 3}
        async with start_gate(Settings.model_validate({"models": {}, "limits": limits})) as gate:
            first = await gate.post("/v1/knowledge/legal/search", {"query": "leave " * 40})
            assert first.status == 200, await first.text()
            assert first.headers["x-ratelimit-remaining-tokens"] == "40"
            assert (await gate.post("/v1/knowledge/legal/search", {"query": "leave " * 40})).status == 429
            none = await key(gate, "none", "knowledge:legal")
            statuses = [
                (await gate.post("/v1/knowledge/handbook/search", {"query": "x"}, none)).status for _ in range(5)
            ]
            assert statuses == [404, 404, 429, 429, 429], "trying counts; and the key's first request did"


async def test_what_was_changed_and_refused_stands_in_the_audit_log(gate: Gate) -> None:
    await send(gate, "PUT", "/v1/knowledge/notes")
    await send(gate, "PUT", "/v1/knowledge/notes/documents/a", b"x")
    await gate.post("/v1/knowledge/legal/search", {"query": "x"}, await key(gate, "only", "knowledge:handbook"))
    entries, denied = [], []
    for _ in range(50):
        with gate.database.read() as connection:
            rows = connection.execute(select(schema.audit)).all()
        entries = [decode_entry(row.entry) for row in rows]
        denied = [entry.action for entry in entries if entry.kind == "deny" and "knowledge" in entry.action]
        if denied:
            break
        await asyncio.sleep(0.05)
    told = {(entry.action, entry.detail) for entry in entries if entry.kind == "administration"}
    assert {("knowledge.add", "notes"), ("knowledge.document.add", "notes: a")} <= told
    assert denied == ["POST /v1/knowledge/legal/search"]


@pytest.mark.parametrize(("method", "path"), [("PUT", "/documents/x"), ("POST", "/search")])
async def test_who_leaves_in_the_middle_of_a_body_is_no_defect(
    gate: Gate, caplog: pytest.LogCaptureFixture, method: str, path: str
) -> None:
    url = URL(gate.url)
    _, writer = await asyncio.open_connection(url.host, url.port)
    head = f"{method} /v1/knowledge/legal{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gate.key}\r\n"
    writer.write(head.encode() + b"content-length: 1000\r\n\r\nbegun")
    await asyncio.sleep(0.1)
    writer.close()
    for _ in range(100):
        if gate.logged() or method == "PUT":
            break
        await asyncio.sleep(0.02)
    assert (await gate.get("/v1/knowledge/legal")).status == 200
    assert [each.getMessage() for each in caplog.records if each.levelname == "ERROR"] == []
    assert [each["outcome"] for each in gate.logged()] == (["cancelled"] if method == "POST" else [])


async def test_searches_are_logged_and_counted(gate: Gate) -> None:
    asked = await gate.post("/v1/knowledge/handbook/search", {"query": "leave " * 4})
    await gate.post("/v1/knowledge/handbook/search", {"query": ""})
    await gate.post("/v1/knowledge/nowhere/search", {"query": "x"})
    entries: list[dict[str, object]] = []
    for _ in range(100):
        entries = gate.logged()
        if len(entries) == 3:
            break
        await asyncio.sleep(0.02)
    found, wrong, nowhere = sorted(entries, key=lambda entry: str(entry["status"]))  # a moment may be that of two
    assert (found["request_id"], found["surface"], found["model"], found["status"], found["outcome"]) == (
        asked.headers["x-request-id"], "search", "knowledge/handbook", 200, "ok",
    )  # fmt: skip
    assert found["prompt_tokens"] == 6
    assert json.loads(str(found["search"])) == {"collections": ["handbook"], "hits": 1, "took_ms": {"total": 1.0}}
    assert (wrong["status"], wrong["search"], wrong["prompt_tokens"]) == (400, None, None)
    assert (nowhere["status"], nowhere["outcome"]) == (404, "collection_not_found")
    figures = await (await gate.get("/metrics")).text()
    assert 'parkway_searches_total{outcome="ok",surface="search"} 1.0' in figures
    assert 'parkway_searches_total{outcome="collection_not_found",surface="search"} 1.0' in figures
    assert 'parkway_search_seconds_count{stage="total"} 1.0' in figures
    with gate.database.read() as connection:
        assert stats(connection, 0, 1 << 62) == [], "no model was asked"


async def test_without_an_owner_there_are_no_collections(start_gate: StartGate) -> None:
    async with start_gate(Settings.model_validate({"models": {}})) as gate:
        assert (await (await gate.get("/v1/knowledge")).json())["data"] == []
        assert (await gate.post("/v1/knowledge/any/search", {"query": "x"})).status == 404
        assert (await send(gate, "PUT", "/v1/knowledge/any")).status == 503


async def test_an_owner_that_is_away_is_told(
    start_gate: StartGate, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with owner(shelf) as url:
        pass
    monkeypatch.setenv("PARKWAY_KNOWLEDGE", url)
    async with start_gate(Settings.model_validate({"models": {}})) as gate:
        answer = await gate.post("/v1/knowledge/legal/search", {"query": "x"})
        assert (answer.status, (await answer.json())["error"]["code"]) == (503, "knowledge_unavailable")
        assert answer.headers["retry-after"] == "1"
        assert (await send(gate, "PUT", "/v1/knowledge/legal/documents/a", b"x")).status == 503


async def test_what_is_wrong_with_an_index_is_not_told_to_who_searches(gate: Gate, shelf: Shelf) -> None:
    shelf.error = IndexUnavailable('PostgreSQL: connection to server at "10.0.0.5" failed for user "parkway"')
    told = await gate.post("/v1/knowledge/legal/search", {"query": "leave"})
    error = (await told.json())["error"]
    assert (told.status, error["code"]) == (503, IndexUnavailable.code)
    assert "legal" in error["message"]
    assert "10.0.0.5" not in error["message"]


async def test_owner_and_replicas_share_searches_and_stand_in_for_each_other(
    start_gate: StartGate, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARKWAY_ENGINE_TOKEN", TOKEN)
    copy, behind = Shelf(dict(shelf.kept)), Shelf({})  # the second has opened nothing yet
    settings = Settings.model_validate({"models": {}})
    query = {"query": "leave"}
    async with owner(copy, replica=True) as first, owner(behind, replica=True) as second:
        async with owner(shelf) as url:
            monkeypatch.setenv("PARKWAY_KNOWLEDGE", f"{url}|{first}|{second}")
            async with start_gate(settings) as gate:
                answers = [await gate.post("/v1/knowledge/legal/search", query) for _ in range(12)]
                assert [answer.status for answer in answers] == [200] * 12
                assert min(len(shelf.asked), len(copy.asked)) >= 4
                assert len(behind.asked) < 12, "it is left alone for a moment"
                assert (await gate.post("/v1/knowledge/nowhere/search", query)).status == 404
                wrong = await gate.post("/v1/knowledge/legal/search", {"query": "leave", "filter": {"a": {"gte": []}}})
                assert wrong.status == 400
                assert (await gate.get("/v1/knowledge")).status == 200
        async with start_gate(settings) as gate:
            answers = [await gate.post("/v1/knowledge/legal/search", query) for _ in range(6)]
            assert [answer.status for answer in answers] == [200] * 6, "its owner is away"


async def test_an_owner_lets_nobody_in_without_the_token(shelf: Shelf) -> None:
    async with owner(shelf) as url, aiohttp.ClientSession() as http:
        for headers in ({}, {"authorization": "Bearer wrong"}):
            async with http.get(f"{url}/collections", headers=headers) as response:
                assert response.status == 401
        async with http.get(f"{url}/collections", headers={"authorization": f"Bearer {TOKEN}"}) as response:
            assert response.status == 200
        async with http.get(f"{url}/healthz") as response:
            assert response.status == 200


async def test_a_large_document_for_a_collection_that_is_not_there_is_told_so(gate: Gate) -> None:
    for _ in range(20):
        told = await send(gate, "PUT", "/v1/knowledge/nowhere/documents/a", b"x" * 100_000)
        assert (told.status, (await told.json())["error"]["code"]) == (404, "collection_not_found")
