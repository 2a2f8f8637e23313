"""Chats that are answered from documents, through a gateway: searched by a script, told by a scripted model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest

from parkway.core.errors import IndexUnavailable
from parkway.core.knowledge import Found, Search
from parkway.launch.settings import Settings
from parkway.policy.keys import KeyStore
from tests.gateway.conftest import Gate, StartGate
from tests.gateway.library import (
    FILE,
    GOOD,
    LIMITS,
    QUESTION,
    UNKNOWN,
    Library,
    ask,
    client,
    endpoint_of,
    hit,
    key_known,
    known,
    says,
    streamed,
)


@pytest.fixture
def library() -> Library:
    return Library()


@pytest.fixture
async def gate(start_gate: StartGate, library: Library) -> AsyncIterator[Gate]:
    async with start_gate(Settings.model_validate({"models": {}}), knowledge=library) as gate:
        yield gate


async def test_an_answer_is_cited_in_openais_form(gate: Gate, library: Library) -> None:
    says(gate, f"{GOOD} Bursts of 1,000 requests are allowed. [1]")
    async with client(gate) as api:
        answer = await api.chat.completions.create(
            model="echo",
            messages=[{"role": "user", "content": QUESTION}],
            extra_body={"knowledge": ["docs"]},
        )
    message = answer.choices[0].message
    assert message.content == "A key may send 100 requests a second [1]. Bursts of 1,000 requests are allowed [1]."
    assert message.annotations is not None
    first, second = (each.url_citation for each in message.annotations)
    assert message.content[first.start_index : first.end_index] == "[1]" == message.content[-4:-1]
    assert second.end_index == len(message.content) - 1
    assert (first.title, first.url) == ("Limits 1", "/v1/knowledge/docs/documents/guide/limits%201.md")
    assert answer.model_extra is not None
    told = answer.model_extra["parkway"]
    assert (told["tier"], told["answered"], told["confidence"]) == ("generated", True, 0.9)
    cited = told["citations"][0]
    assert message.content[cited["answer_start"] : cited["answer_end"]] == "A key may send 100 requests a second"
    assert LIMITS[cited["start"] - 1000 : cited["end"] - 1000] == cited["quote"] == LIMITS.split(" Bursts")[0]
    (asked,) = library.asked
    assert asked == ("docs", Search(query=QUESTION, limit=20), frozenset({"key:test"}))


async def test_a_stream_ends_with_what_it_rests_on(gate: Gate) -> None:
    says(gate, f"{GOOD} Bursts of 1,000 requests are allowed [1].")
    async with client(gate) as api:
        stream = await api.chat.completions.create(
            model="echo",
            messages=[{"role": "user", "content": QUESTION}],
            stream=True,
            extra_body={"knowledge": ["docs"]},
        )
        chunks = [each async for each in stream]
    text = "".join(each.choices[0].delta.content or "" for each in chunks)
    assert text == f"{GOOD} Bursts of 1,000 requests are allowed [1]."
    ended = [each for each in chunks if each.model_extra and "parkway" in each.model_extra]
    delta = ended[0].choices[0].delta.model_extra
    assert delta is not None
    assert [each["url_citation"]["start_index"] for each in delta["annotations"]] == [37, 79]
    assert chunks.index(ended[0]) == len(chunks) - 2
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_responses_tell_citations_in_their_form(gate: Gate, library: Library) -> None:
    library.found["docs"] = Found(hits=[hit(LIMITS), hit(FILE, 2, uri="https://example.org/file")], confidence=0.9)
    says(gate, f"{GOOD} The file parkway.yaml sets what is allowed [2].")
    async with client(gate) as api:
        response = await api.responses.create(model="echo", input=QUESTION, extra_body={"knowledge": ["docs"]})
        stream = await api.responses.create(
            model="echo", input=QUESTION, stream=True, extra_body={"knowledge": ["docs"]}
        )
        events = [event async for event in stream]
    part = response.output[0].content[0]  # pyright: ignore
    file, url = (each.model_dump() for each in part.annotations)  # pyright: ignore
    assert file == {"type": "file_citation", "file_id": "d1", "filename": "Limits 1", "index": 40}
    assert (url["type"], url["url"]) == ("url_citation", "https://example.org/file")
    assert part.text[url["start_index"] : url["end_index"]] == "[2]"  # pyright: ignore
    assert response.model_extra is not None
    assert response.model_extra["parkway"]["tier"] == "generated"
    added = [event for event in events if event.type == "response.output_text.annotation.added"]
    assert [each.annotation_index for each in added] == [0, 1]
    done = events[-1]
    assert done.type == "response.completed"
    assert done.response.output[0].content[0].annotations == part.annotations  # pyright: ignore


async def test_messages_tell_citations_in_their_form(gate: Gate) -> None:
    says(gate, GOOD)
    asked: dict[str, Any] = {
        "model": "echo",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": QUESTION}],
        "extra_body": {"knowledge": ["docs"]},
    }
    async with anthropic.AsyncAnthropic(api_key=gate.key, base_url=gate.url, max_retries=0) as api:
        message = await api.messages.create(**asked)
        body = asked.pop("extra_body")
        async with api.messages.stream(**asked, extra_body=body) as stream:
            streamed = await stream.get_final_message()
    block = message.content[0]
    assert block.type == "text"
    assert block.citations is not None
    (citation,) = block.citations
    assert citation.type == "char_location"
    assert citation.cited_text == "Each key may send 100 requests a second."
    assert (citation.document_index, citation.document_title, citation.start_char_index) == (0, "Limits 1", 1000)
    assert streamed.content[0].citations == block.citations  # pyright: ignore
    assert message.model_extra is not None
    assert message.model_extra["parkway"]["citations"][0]["number"] == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_what_no_passage_supports_is_marked_or_dropped(gate: Gate, stream: bool) -> None:
    says(gate, f"{GOOD} Keys never expire [1]. Bursts of 5,000 requests are allowed [1].")
    for check, text in (
        ("mark", f"{GOOD} Keys never expire. [unsupported] Bursts of 5,000 requests are allowed. [unsupported]"),
        ("drop", GOOD),
    ):
        body = ask(grounding={"check": check})
        if stream:
            said, annotations, told, _ = await streamed(gate, body)
        else:
            answer = await (await gate.post("/v1/chat/completions", body)).json()
            message = answer["choices"][0]["message"]
            said, annotations, told = message["content"], message["annotations"], answer["parkway"]
        assert said == text
        assert len(annotations) == 1
        assert [said[each["answer_start"] : each["answer_end"]] for each in told.get("unsupported", [])] == (
            ["Keys never expire.", "Bursts of 5,000 requests are allowed."] if check == "mark" else []
        )
        assert told.get("dropped", 0) == (2 if check == "drop" else 0)


async def test_a_stream_is_held_a_sentence_at_a_time(gate: Gate) -> None:
    says(gate, f"{GOOD} Keys never expire [1]. Bursts of 1,000 requests are allowed [1].")
    said, _, _, pieces = await streamed(gate, ask(grounding={"check": "drop"}))
    assert pieces == [GOOD, " Bursts of 1,000 requests are allowed [1]."]
    assert said == "".join(pieces)


async def test_an_answer_of_which_nothing_holds_is_that_there_is_none(gate: Gate) -> None:
    says(gate, "Keys never expire [1]. Nobody knows.")
    answer = await (await gate.post("/v1/chat/completions", ask(grounding={"check": "drop"}))).json()
    assert answer["choices"][0]["message"]["content"] == UNKNOWN
    assert answer["parkway"]["answered"] is False
    assert answer["parkway"]["tier"] == "generated"


@pytest.mark.parametrize("stream", [False, True])
async def test_small_models_quote_word_for_word(gate: Gate, stream: bool) -> None:
    gate.registry.put(endpoint_of(gate, "park-mini"))
    await known(gate, "park-mini")
    body = ask(model="park-mini")
    if stream:
        said, annotations, told, _ = await streamed(gate, body)
    else:
        response = await gate.post("/v1/chat/completions", body)
        answer = await response.json()
        assert response.headers["x-parkway-tier"] == "extractive"
        assert answer["usage"]["total_tokens"] == 0
        message = answer["choices"][0]["message"]
        said, annotations, told = message["content"], message["annotations"], answer["parkway"]
    assert said.splitlines()[0] == "\u201cEach key may send 100 requests a second.\u201d [1]"
    assert (told["tier"], told["answered"]) == ("extractive", True)
    for each, annotation in zip(told["citations"], annotations, strict=True):
        assert said[each["answer_start"] + 1 : each["answer_end"] - 1] == each["quote"]
        assert each["quote"] in LIMITS + FILE
        assert annotation["url_citation"]["start_index"] == each["marker_start"]
    assert gate.upstream.bodies == []


async def test_links_say_where_to_read(gate: Gate) -> None:
    answer = await (await gate.post("/v1/chat/completions", ask(grounding={"tier": "links"}))).json()
    assert answer["choices"][0]["message"]["content"] == "Limits 1 [1]\nLimits 2 [2]"
    assert answer["parkway"]["tier"] == "links"
    assert gate.upstream.bodies == []


async def test_a_request_asks_for_less_never_for_more(start_gate: StartGate, library: Library) -> None:
    settings = Settings.model_validate({"models": {}, "grounding": {"tier": "extractive", "min_confidence": 0.95}})
    async with start_gate(settings, knowledge=library) as gate:
        body = ask(grounding={"tier": "generated", "min_confidence": 0.0})
        answer = await (await gate.post("/v1/chat/completions", body)).json()
        assert (answer["parkway"]["tier"], answer["parkway"]["answered"]) == ("extractive", False)


@pytest.mark.parametrize("tier", ["generated", "extractive", "links"])
async def test_below_the_threshold_it_does_not_know(gate: Gate, library: Library, tier: str) -> None:
    library.found["docs"] = Found(hits=[hit(LIMITS)], confidence=0.1)
    for body in (ask(grounding={"tier": tier}), ask(knowledge=["empty"], grounding={"tier": tier})):
        answer = await (await gate.post("/v1/chat/completions", body)).json()
        assert answer["choices"][0]["message"] == {
            "role": "assistant", "content": UNKNOWN, "refusal": None, "annotations": [],
        }  # fmt: skip
        assert answer["parkway"] == {
            "tier": tier, "answered": False, "citations": [], "query": QUESTION,
            "confidence": 0.1 if body["knowledge"] == ["docs"] else 0.0,
        }  # fmt: skip
    assert gate.upstream.bodies == []


async def test_the_model_sees_passages_between_lines_of_their_own(gate: Gate) -> None:
    says(gate, GOOD)
    system = {"role": "system", "content": "Be brief."}
    body = ask(messages=[system, {"role": "user", "content": QUESTION}], tool_choice="auto", functions=[{"name": "x"}])
    await gate.post("/v1/chat/completions", body)
    (sent,) = gate.upstream.bodies
    messages: Any = sent["messages"]
    assert messages[0] == system
    content = messages[1]["content"]
    begin = content.index("BEGIN ", content.index("\n\n"))
    mark = content[begin + 6 : begin + 38]
    assert f"BEGIN {mark} passage [1]: Limits 1\n{LIMITS}\nEND {mark} passage [1]" in content
    assert content.endswith(f"Question: {QUESTION}")
    assert content.index("Answer the question") > content.rindex(f"END {mark}")
    assert not {"knowledge", "grounding", "functions", "tool_choice"} & sent.keys()


async def test_collections_that_are_denied_look_like_those_that_are_not_there(gate: Gate, library: Library) -> None:
    _, key = KeyStore(gate.database).create("narrow", scopes=["model:*", "knowledge:docs"])
    await key_known(gate, key)
    told = []
    for name in ("empty", "nobody"):
        response = await gate.post("/v1/chat/completions", ask(knowledge=["docs", name]), key=key)
        error = (await response.json())["error"]
        assert (response.status, error["code"], error["param"]) == (404, "collection_not_found", "knowledge")
        names = sorted(header for header in response.headers if header != "content-length")
        told.append((error["message"].replace(name, "X"), names))
    assert told[0] == told[1]
    assert library.asked == []
    library.gone.add("docs")
    response = await gate.post("/v1/chat/completions", ask(), key=key)
    assert (await response.json())["error"]["message"].replace("docs", "X") == told[0][0]


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"response_format": {"type": "json_object"}, "grounding": {"tier": "extractive"}}, "response_format"),
        ({"structured_outputs": {"regex": "a"}, "grounding": {"tier": "links"}}, "structured_outputs"),
        ({"logprobs": True}, "logprobs"),
        ({"knowledge": ["docs"] * 9}, "knowledge"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"grounding": {"tiers": "x"}}, "grounding.tiers"),
    ],
)
async def test_what_an_answer_from_documents_cannot_be(gate: Gate, more: dict[str, Any], param: str) -> None:
    response = await gate.post("/v1/chat/completions", ask(**more))
    assert (response.status, (await response.json())["error"]["param"]) == (400, param)


async def test_failures_of_the_search_are_told(gate: Gate, library: Library) -> None:
    library.error = IndexUnavailable("the index is away")
    response = await gate.post("/v1/chat/completions", ask(stream=True))
    assert (response.status, (await response.json())["error"]["code"]) == (503, "index_unavailable")
    assert gate.upstream.bodies == []


async def test_a_search_that_hangs_is_given_up(start_gate: StartGate, library: Library) -> None:
    library.ready.clear()
    settings = Settings.model_validate({"models": {}, "grounding": {"search_timeout_s": 0.05}})
    async with start_gate(settings, knowledge=library) as gate:
        response = await gate.post("/v1/chat/completions", ask())
        assert (response.status, (await response.json())["error"]["code"]) == (503, "knowledge_unavailable")
