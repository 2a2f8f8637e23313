"""The engine over real HTTP: what clients see, and what happens when they leave."""

import asyncio
import base64
import json
import os
import re
import signal
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from parkway.core.errors import ConfigurationError
from parkway.engine.config import EngineConfig
from parkway.engine.server import TOKEN_VARIABLE, serve
from parkway.engine.service import TextService
from tests.engine.test_adapters import write_adapter
from tests.engine.tiny import CONFIGS, SPECIAL, reference, state_of, write_directory

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # No end of an answer: every one is as long as it may be.
    return write_directory(tmp_path_factory.mktemp("models") / "tiny", CONFIGS["qwen3-grouped-yarn"])


@asynccontextmanager
async def running(model: Path | str, **config: Any) -> AsyncIterator[str]:
    """A server in this process, on a port of its own; yields its URL."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    settings = EngineConfig.model_validate(
        {"model": str(model), "port": 0, "device": "cpu", "dtype": "float32", "drain_s": 1, **config}
    )
    server = asyncio.create_task(serve(settings, ready.set_result))
    await asyncio.wait((ready, server), return_when=asyncio.FIRST_COMPLETED)
    if server.done():
        server.result()
    try:
        yield ready.result()
    finally:
        os.kill(os.getpid(), signal.SIGTERM)  # as a supervisor stops it; the server handles it for this process
        await asyncio.wait_for(server, 30)


@pytest.fixture
async def url(directory: Path) -> AsyncIterator[str]:
    async with running(directory, max_sequences=4, queue_limit=8, step_tokens=16) as url:
        yield url


@pytest.fixture
async def http(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(url) as session:
        yield session


@pytest.fixture
async def encoder() -> AsyncIterator[aiohttp.ClientSession]:
    async with running("park-embed", name="park-embed") as url, aiohttp.ClientSession(url) as session:
        yield session


@pytest.fixture
async def client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


async def metric(http: aiohttp.ClientSession, name: str) -> float:
    async with http.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"parkway_engine_{name}{{"))


async def test_the_metrics_tell_how_the_model_is_computed(http: aiohttp.ClientSession) -> None:
    assert await metric(http, "info") == 1
    async with http.get("/metrics") as response:
        line = next(each for each in (await response.text()).splitlines() if each.startswith("parkway_engine_info{"))
    assert 'device="cpu"' in line
    assert 'dtype="float32"' in line
    assert 'matrices="Linear"' in line
    assert 'attention="PagedAttention"' in line


async def until_idle(http: aiohttp.ClientSession) -> None:
    async with asyncio.timeout(30):
        # Each look is a request of its own, so this does not spin.
        while await metric(http, "running") or await metric(http, "waiting"):
            pass


async def test_chat_whole_and_streamed_say_the_same(client: openai.AsyncOpenAI) -> None:
    asked: dict[str, Any] = {"model": "tiny", "messages": HELLO, "max_tokens": 20, "seed": 3, "temperature": 1.0}
    whole = await client.chat.completions.create(**asked)
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 20
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + 20
    stream = await client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_the_stop_string_that_ended_an_answer_is_told(client: openai.AsyncOpenAI) -> None:
    asked: dict[str, Any] = {"model": "tiny", "messages": HELLO, "max_tokens": 20, "temperature": 0.0}
    whole = await client.chat.completions.create(**asked)
    assert not hasattr(whole.choices[0], "stop_reason")
    stop = (whole.choices[0].message.content or "")[5:7]
    stopped = await client.chat.completions.create(**asked, stop=["nowhere", stop])
    assert stopped.choices[0].stop_reason == stop  # pyright: ignore
    stream = await client.chat.completions.create(**asked, stop=stop, stream=True)
    assert [chunk.choices[0].stop_reason async for chunk in stream if chunk.choices[0].finish_reason] == [stop]  # pyright: ignore


async def test_usage_is_absent_from_a_stream_unless_asked_for(http: aiohttp.ClientSession) -> None:
    async with http.post(
        "/v1/chat/completions", json={"model": "tiny", "messages": HELLO, "max_tokens": 3, "stream": True}
    ) as response:
        assert response.content_type == "text/event-stream"
        lines = (await response.text()).split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert all("usage" not in event for event in events)
    assert all(event["choices"] for event in events)


async def test_several_choices_and_log_probabilities(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="tiny", messages=HELLO, max_tokens=6, n=3, logprobs=True, top_logprobs=2, temperature=1.5
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 18
    for choice in answer.choices:
        assert choice.logprobs is not None
        content = choice.logprobs.content or []
        assert len(content) == 6
        assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in content)
        data = b"".join(bytes(token.bytes or []) for token in content if token.token not in SPECIAL)
        assert data.decode("utf-8", errors="replace").startswith(choice.message.content or "")


async def test_completions_take_texts_and_token_ids(client: openai.AsyncOpenAI) -> None:
    for prompt, count in (("hello", 1), (["a", "b"], 2), ([65, 66], 1), ([[65], [66], [67]], 3)):
        answer = await client.completions.create(model="tiny", prompt=prompt, max_tokens=4, n=2, logprobs=2)
        assert [choice.index for choice in answer.choices] == list(range(2 * count))
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 8 * count
        for choice in answer.choices:
            assert choice.logprobs is not None
            assert len(choice.logprobs.tokens or []) == 4
            assert (choice.logprobs.text_offset or [])[0] == 0


async def test_streamed_completions_say_the_same(client: openai.AsyncOpenAI) -> None:
    asked: dict[str, Any] = {"model": "tiny", "prompt": "hello", "max_tokens": 12, "temperature": 0, "logprobs": 1}
    whole = await client.completions.create(**asked)
    stream = await client.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(choice.text for choice in choices) == whole.choices[0].text
    assert chunks[-1].usage == whole.usage
    offsets = [offset for choice in choices if choice.logprobs for offset in choice.logprobs.text_offset or []]
    assert whole.choices[0].logprobs is not None
    assert offsets == whole.choices[0].logprobs.text_offset


async def test_the_callers_request_id_is_taken_over_if_it_is_sane(http: aiohttp.ClientSession) -> None:
    body = {"model": "tiny", "messages": HELLO, "max_tokens": 1}
    for given, sane in (("req_01abc", True), ("a b", False), ("x" * 500, False), ("", False)):
        async with http.post("/v1/chat/completions", json=body, headers={"x-request-id": given}) as response:
            answer = await response.json()
        assert (answer["id"] == f"chatcmpl-{given}") == sane
        assert answer["id"] == f"chatcmpl-{response.headers['x-request-id']}"


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (b"", 400, "malformed_json", None),
        (b"{", 400, "malformed_json", None),
        (b'{"model": "tiny"}', 400, "invalid_request", "messages"),
        (b'{"model": "tiny", "messages": []}', 400, "invalid_request", "messages"),
        (b'{"model": "tiny", "messages": "hi"}', 400, "invalid_request", "messages"),
        ({"model": "tinny", "messages": HELLO}, 404, "model_not_found", "model"),
        ({"messages": HELLO, "model": "tiny", "temperature": 9}, 400, "invalid_request", "temperature"),
        ({"messages": HELLO, "model": "tiny", "temperatur": 1}, 400, "invalid_request", "temperatur"),
        ({"messages": HELLO, "model": "tiny", "tools": [{}]}, 400, "invalid_request", "tools.0"),
        ({"messages": HELLO, "model": "tiny", "knowledge": ["x"]}, 400, "unsupported_field", "knowledge"),
        ({"messages": HELLO, "model": "tiny", "max_tokens": 5000}, 400, "context_length_exceeded", "messages"),
        ({"messages": HELLO, "model": "tiny", "stream_options": {}}, 400, "invalid_request", "stream_options"),
        ({"messages": HELLO, "model": "tiny", "n": 99}, 400, "invalid_request", "n"),
    ],
)
async def test_what_is_wrong_is_said(
    http: aiohttp.ClientSession, body: bytes | dict[str, Any], status: int, code: str, param: str | None
) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with http.post("/v1/chat/completions", data=data) as response:
        error = (await response.json())["error"]
        assert (response.status, error["code"], error["param"]) == (status, code, param)
        assert error["request_id"] == response.headers["x-request-id"]
        assert error["message"]


async def test_other_paths_and_methods(http: aiohttp.ClientSession) -> None:
    async with http.post("/v1/embeddings", json={"model": "tiny", "input": "hi"}) as response:
        assert response.status == 400
        assert "/v1/chat/completions" in (await response.json())["error"]["message"]
    async with http.get("/nowhere") as response:
        assert (response.status, (await response.json())["error"]["code"]) == (404, "not_found")
    async with http.get("/v1/chat/completions") as response:
        assert (response.status, (await response.json())["error"]["code"]) == (405, "method_not_allowed")
    async with http.get("/v1/models") as response:
        assert [model["id"] for model in (await response.json())["data"]] == ["tiny"]
    for path in ("/healthz", "/readyz"):
        async with http.get(path) as response:
            assert response.status == 200


async def test_a_body_without_end_is_cut_off(directory: Path) -> None:
    async with running(directory, max_body_bytes=2000) as url, aiohttp.ClientSession(url) as http:
        body = {"model": "tiny", "messages": [{"role": "user", "content": "x" * 3000}]}
        async with http.post("/v1/chat/completions", json=body) as response:
            assert (response.status, (await response.json())["error"]["code"]) == (413, "body_too_large")


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(http: aiohttp.ClientSession) -> None:
    body = {"model": "tiny", "messages": HELLO, "max_tokens": 200, "n": 4, "stream": True}
    async with http.post("/v1/chat/completions", json=body) as first:
        await first.content.readline()
        second = await asyncio.gather(*(http.post("/v1/chat/completions", json=body) for _ in range(4)))
        refused = [response for response in second if response.status == 503]
        assert refused
        for response in refused:
            assert response.headers["retry-after"] == "1"
            assert (await response.json())["error"]["code"] == "overloaded"
        for response in second:
            response.close()
    await until_idle(http)


async def test_clients_that_leave_in_the_middle_free_their_places(http: aiohttp.ClientSession) -> None:
    body = {"model": "tiny", "messages": HELLO, "max_tokens": 200, "stream": True}
    for _ in range(3):
        responses = await asyncio.gather(*(http.post("/v1/chat/completions", json=body) for _ in range(4)))
        for response in responses:
            await response.content.readline()
            response.close()
    await until_idle(http)
    # Twelve answers of 200 tokens were begun; nearly nothing of them was made.
    assert await metric(http, "completion_tokens_total") < 12 * 200


async def test_clients_that_leave_before_the_first_token_free_their_places(http: aiohttp.ClientSession) -> None:
    long = {"model": "tiny", "messages": HELLO, "max_tokens": 200, "n": 4}
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(_leave_after(http, long, 0.2))
    await until_idle(http)
    async with http.post("/v1/chat/completions", json={**long, "n": 1, "max_tokens": 1}) as response:
        assert response.status == 200
    assert await metric(http, "completion_tokens_total") < 8 * 200


async def _leave_after(http: aiohttp.ClientSession, body: dict[str, Any], seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds), http.post("/v1/chat/completions", json=body) as response:
            await response.read()
    except TimeoutError:
        pass


async def test_a_deadline_that_passes_is_an_error_whole_and_streamed(directory: Path) -> None:
    async with running(directory, request_timeout_s=0.05) as url, aiohttp.ClientSession(url) as http:
        body = {"model": "tiny", "messages": HELLO, "max_tokens": 200, "n": 8}
        async with http.post("/v1/chat/completions", json=body) as response:
            assert (response.status, (await response.json())["error"]["code"]) == (504, "deadline_exceeded")
        async with http.post("/v1/chat/completions", json={**body, "stream": True}) as response:
            blocks = (await response.text()).strip().split("\n\n")
        assert json.loads(blocks[-1].removeprefix("data: "))["error"]["code"] == "deadline_exceeded"
        assert "data: [DONE]" not in blocks


async def test_a_failing_step_is_an_error_event_and_the_next_request_works(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    from parkway.engine.engine import Engine

    def fail(*_: object) -> None:
        raise RuntimeError("out of everything")

    body = {"model": "tiny", "messages": HELLO, "max_tokens": 200, "stream": True}
    async with http.post("/v1/chat/completions", json=body) as response:
        await response.content.readline()
        with monkeypatch.context() as patched:
            patched.setattr(Engine, "_run", fail)
            blocks = (await response.text()).strip().split("\n\n")
    assert json.loads(blocks[-1].removeprefix("data: "))["error"]["code"] == "internal_error"
    assert "out of everything" not in blocks[-1]
    async with http.post("/v1/chat/completions", json={**body, "stream": False, "max_tokens": 2}) as response:
        assert response.status == 200
    await until_idle(http)


async def test_a_defect_in_an_answer_is_an_error_and_not_silence(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(TextService, "_answer", fail)
    async with http.post("/v1/chat/completions", json={"model": "tiny", "messages": HELLO}) as response:
        body = await response.text()
    assert response.status == 500
    assert "internal_error" in body
    assert "secret" not in body


async def test_a_token_is_asked_for_where_one_is_set(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "opensesame")
    async with running(directory) as url, aiohttp.ClientSession(url) as http:
        for headers, status in (
            ({}, 401),
            ({"authorization": "Bearer wrong"}, 401),
            ({"authorization": "opensesame"}, 401),
            ({"authorization": "Bearer opensesame"}, 200),
        ):
            for path in ("/v1/models", "/readyz", "/metrics"):
                async with http.get(path, headers=headers) as response:
                    assert response.status == status
            async with http.get("/healthz", headers=headers) as response:
                assert response.status == 200


async def test_stopping_lets_answers_finish_within_the_time_to_drain(directory: Path) -> None:
    async with aiohttp.ClientSession() as http:
        async with running(directory, drain_s=30) as url:
            body = {"model": "tiny", "messages": HELLO, "max_tokens": 150, "stream": True}
            response = await http.post(f"{url}/v1/chat/completions", json=body)
            await response.content.readline()
        assert (await response.text()).endswith("data: [DONE]\n\n")
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.get(f"{url}/healthz")


async def test_stopping_ends_answers_that_take_too_long_with_a_reason(directory: Path) -> None:
    async with aiohttp.ClientSession() as http:
        async with running(directory, drain_s=0) as url:
            body = {"model": "tiny", "messages": HELLO, "max_tokens": 240, "n": 8, "stream": True}
            response = await http.post(f"{url}/v1/chat/completions", json=body)
            await response.content.readline()
        last = (await response.text()).strip().split("\n\n")[-1]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "draining"


async def test_embeddings() -> None:
    async with running("park-embed", name="park-embed") as url:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            floats = await client.embeddings.create(model="park-embed", input=["a cat", "x"], encoding_format="float")
            assert [item.index for item in floats.data] == [0, 1]
            assert floats.usage.prompt_tokens == 4 + 3
            coded = await client.embeddings.create(model="park-embed", input="a cat")
            assert coded.data[0].embedding == pytest.approx(floats.data[0].embedding, abs=1e-6)
            with pytest.raises(openai.BadRequestError, match="302 tokens"):
                await client.embeddings.create(model="park-embed", input="word " * 300)
            with pytest.raises(openai.BadRequestError, match="384"):
                await client.embeddings.create(model="park-embed", input="word", dimensions=100)
            with pytest.raises(openai.BadRequestError, match="/v1/embeddings"):
                await client.chat.completions.create(model="park-embed", messages=HELLO)
        async with aiohttp.ClientSession(url) as http:
            body = {"model": "park-embed", "input": [[101, 1037, 4937, 102]], "encoding_format": "base64"}
            async with http.post("/v1/embeddings", json=body) as response:
                data = base64.b64decode((await response.json())["data"][0]["embedding"])
        assert struct.unpack("<384f", data) == pytest.approx(floats.data[0].embedding, abs=1e-5)


def asking(**fields: Any) -> dict[str, Any]:
    """A rerank request whose last document is the best one and whose first two are equal."""
    documents = ["The weather is fine.", {"text": "The weather is fine."}, "tar extracts an archive"]
    return {"model": "park-embed", "query": "unpack an archive", "documents": documents, **fields}


async def test_rerank() -> None:
    async with running("park-embed", name="park-embed") as url, aiohttp.ClientSession(url) as http:
        async with http.post("/v1/rerank", json=asking()) as response:
            answer = await response.json()
            assert answer["id"] == f"rerank-{response.headers['x-request-id']}"
        assert answer["model"] == "park-embed"
        # The best one first; the equal ones in the order of the request.
        assert [result["index"] for result in answer["results"]] == [2, 0, 1]
        best, second, third = (result["relevance_score"] for result in answer["results"])
        assert 1 > best > second == third > -1
        assert all("document" not in result for result in answer["results"])
        # [CLS] unpack an archive [SEP]: "unpack" are two tokens.
        assert answer["usage"] == {"prompt_tokens": 6 + 7 + 7 + 6, "total_tokens": 26}
        async with http.post("/v1/rerank", json=asking(top_n=2, return_documents=True)) as response:
            results = (await response.json())["results"]
        assert [result["index"] for result in results] == [2, 0]
        assert [result["document"] for result in results] == [
            {"text": "tar extracts an archive"},
            {"text": "The weather is fine."},
        ]
        async with http.post("/v1/rerank", json=asking(top_n=99, max_tokens_per_doc=2)) as response:
            cut = await response.json()
        assert len(cut["results"]) == 3
        assert cut["usage"]["prompt_tokens"] == 6 + 4 + 4 + 4


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (b"", 400, "malformed_json", None),
        (asking(model="park-embedd"), 404, "model_not_found", "model"),
        (asking(query=None), 400, "invalid_request", "query"),
        (asking(query=""), 400, "invalid_request", "query"),
        (asking(query="word " * 300), 400, "context_length_exceeded", "query"),
        (asking(documents=[]), 400, "invalid_request", "documents"),
        (asking(documents=["a"] * 1001), 400, "invalid_request", "documents"),
        (asking(documents=["a", ""]), 400, "invalid_request", "documents.1"),
        (asking(documents=["a", {}]), 400, "invalid_request", "documents.1.text"),
        (asking(documents=["a", "word " * 300]), 400, "context_length_exceeded", "documents.1"),
        (asking(documents=["a", "word " * 300], max_tokens_per_doc=299), 400, "context_length_exceeded", "documents.1"),
        (asking(top_n=0), 400, "invalid_request", "top_n"),
        (asking(topn=1), 400, "invalid_request", "topn"),
        (asking(max_tokens_per_doc=-1), 400, "invalid_request", "max_tokens_per_doc"),
    ],
)
async def test_what_is_wrong_with_a_rerank_request_is_said(
    encoder: aiohttp.ClientSession, body: bytes | dict[str, Any], status: int, code: str, param: str | None
) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with encoder.post("/v1/rerank", data=data) as response:
        error = (await response.json())["error"]
        assert (response.status, error["code"], error["param"]) == (status, code, param)
        assert error["message"]


async def test_small_requests_at_once_share_passes(encoder: aiohttp.ClientSession) -> None:
    async def embed(text: str) -> list[float]:
        async with encoder.post("/v1/embeddings", json={"model": "park-embed", "input": text}) as response:
            return (await response.json())["data"][0]["embedding"]

    texts = [f"text number {number}" for number in range(40)]
    alone = [await embed(text) for text in texts[:2]]
    before = await metric(encoder, "steps_total")
    together = await asyncio.gather(*map(embed, texts))
    assert await metric(encoder, "steps_total") - before < 40
    for one, other in zip(alone, together, strict=False):
        assert one == pytest.approx(other, abs=1e-5)


async def test_a_client_that_leaves_a_ranking_frees_the_encoder(encoder: aiohttp.ClientSession) -> None:
    long = asking(documents=[f"{number} words " * 80 for number in range(400)])
    before = await metric(encoder, "texts_total")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5), encoder.post("/v1/rerank", json=long) as response:
            await response.read()
    async with asyncio.timeout(20), encoder.post("/v1/rerank", json=asking()) as response:
        assert response.status == 200
    assert await metric(encoder, "waiting") == 0
    assert await metric(encoder, "texts_total") - before < 400


async def test_a_ranking_that_outlasts_the_time_to_drain_ends_with_a_reason() -> None:
    async with aiohttp.ClientSession() as http:
        async with running("park-embed", name="park-embed", drain_s=0) as url:
            long = asking(documents=[f"{number} words " * 80 for number in range(400)])
            asked = asyncio.ensure_future(http.post(f"{url}/v1/rerank", json=long))
            async with aiohttp.ClientSession(url) as watching:
                while await metric(watching, "steps_total") < 3:
                    pass
        response = await asked
        assert (response.status, (await response.json())["error"]["code"]) == (503, "draining")


async def test_the_process_says_when_it_is_ready_and_ends_cleanly(directory: Path) -> None:
    program = "import sys; from parkway.engine.config import EngineConfig; from parkway.engine.server import run; "
    program += "run(EngineConfig(model=sys.argv[1], port=0, drain_s=1))"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(directory), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
    assert line.startswith("ready http://127.0.0.1:")
    async with aiohttp.ClientSession() as http, http.get(f"{line.split()[1]}/readyz") as response:
        assert response.status == 200
    process.terminate()
    assert await asyncio.wait_for(process.wait(), 30) == 0


async def test_a_process_whose_engine_died_ends_rather_than_hangs(directory: Path) -> None:
    program = """
import sys
from parkway.engine.config import EngineConfig
from parkway.engine.engine import Engine
from parkway.engine.server import run
serving = []
step = Engine.step
def fail(self, *_):
    raise RuntimeError("beyond repair")
def step_or_fail(self):
    return fail(self) if serving else step(self)
Engine.step = step_or_fail
Engine.abort = fail
import parkway.engine.service as service
chat = service.TextService.chat
async def chat_then_fail(self, call):
    serving.append(True)
    await chat(self, call)
service.TextService.chat = chat_then_fail
run(EngineConfig(model=sys.argv[1], port=0))
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(directory), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None
    address = (await asyncio.wait_for(process.stdout.readline(), 60)).decode().split()[1]
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.ClientError):
            await http.post(f"{address}/v1/chat/completions", json={"model": directory.name, "messages": HELLO})
    assert await asyncio.wait_for(process.wait(), 30) == 70


async def test_a_taken_port_is_said_before_the_model_is_loaded(directory: Path) -> None:
    from parkway.core.errors import StartupError

    async with running(directory) as url:
        port = int(url.rsplit(":", 1)[1])
        with pytest.raises(StartupError, match=f"cannot listen on 127.0.0.1:{port}"):
            await serve(EngineConfig(model="/nowhere", port=port), print)


def test_importing_the_server_does_not_import_the_heavy_and_needless() -> None:
    import subprocess

    program = "import sys, parkway.engine.server; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"transformers", "torch._dynamo", "torch._inductor", "pandas"} & set(loaded)


async def test_biases_and_penalties_change_the_answer(client: openai.AsyncOpenAI) -> None:
    async def ask(**fields: Any) -> str:
        answer = await client.completions.create(model="tiny", prompt="x", max_tokens=12, temperature=0, **fields)
        return answer.choices[0].text

    assert set(await ask(logit_bias={"66": 10})) == {"c"}
    tired = await ask(logit_bias={"66": 10}, frequency_penalty=2)
    assert tired.startswith("cc")
    assert set(tired) != {"c"}


@pytest.mark.parametrize("token", ["-1", "x", "99999", "²"])
async def test_a_bias_for_no_token_is_refused(client: openai.AsyncOpenAI, token: str) -> None:
    with pytest.raises(openai.BadRequestError, match="is no token id") as caught:
        await client.completions.create(model="tiny", prompt="x", logit_bias={token: 1})
    assert caught.value.param == "logit_bias"


async def test_an_echoed_prompt_stands_before_the_answer_with_its_log_probabilities(client: openai.AsyncOpenAI) -> None:
    prompt = "the quick brown fox jumps over the lazy dog, twice"
    asked: dict[str, Any] = {"model": "tiny", "prompt": prompt, "temperature": 0, "logprobs": 2}
    plain = await client.completions.create(**asked, max_tokens=4)
    for _ in range(2):  # the second time the cache holds the prompt, which must not cost its scores
        echoed = await client.completions.create(**asked, max_tokens=4, echo=True)
        assert echoed.choices[0].text == prompt + plain.choices[0].text
        scores = echoed.choices[0].logprobs
        assert scores is not None
        assert scores.token_logprobs is not None
        assert scores.tokens is not None
        assert scores.text_offset is not None
        assert "".join(scores.tokens).startswith(prompt)
        assert scores.token_logprobs[0] is None
        assert all(isinstance(each, float) for each in scores.token_logprobs[1:])
        assert len(scores.tokens) == echoed.usage.total_tokens  # pyright: ignore[reportOptionalMemberAccess]
        assert scores.text_offset[0] == 0
        assert scores.text_offset[-4] == len(prompt)
    alone = await client.completions.create(**asked, max_tokens=0, echo=True)
    assert alone.choices[0].text == prompt
    assert alone.choices[0].finish_reason == "length"
    assert alone.choices[0].logprobs is not None
    assert alone.choices[0].logprobs.token_logprobs == scores.token_logprobs[:-4]


async def test_an_echoed_prompt_is_streamed_first(client: openai.AsyncOpenAI) -> None:
    stream = await client.completions.create(
        model="tiny", prompt="once upon", max_tokens=3, temperature=0, echo=True, stream=True, n=2
    )
    texts = {0: "", 1: ""}
    async for event in stream:
        for choice in event.choices:
            texts[choice.index] += choice.text
    assert all(text.startswith("once upon") and len(text) > len("once upon") for text in texts.values())


async def test_no_tokens_without_an_echo_is_refused(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="echo"):
        await client.completions.create(model="tiny", prompt="x", max_tokens=0)


async def test_tokens_found_in_the_cache_are_told(client: openai.AsyncOpenAI) -> None:
    asked: dict[str, Any] = {"model": "tiny", "prompt": "a" * 100, "max_tokens": 2}
    first = await client.completions.create(**asked)
    second = await client.completions.create(**asked)
    cached = [
        each.usage and each.usage.model_dump()["prompt_tokens_details"]["cached_tokens"] for each in (first, second)
    ]
    assert cached == [0, 96]


async def test_the_scheduler_is_measured(client: openai.AsyncOpenAI, http: aiohttp.ClientSession) -> None:
    for _ in range(2):
        await client.completions.create(model="tiny", prompt="b" * 100, max_tokens=5)
    assert await metric(http, "cached_tokens_total") == 96
    assert await metric(http, "first_token_seconds_count") == 3  # the warm-up is one
    assert await metric(http, "next_token_seconds_count") == 9
    assert await metric(http, "preemptions_total") == await metric(http, "evictions_total") == 0
    assert await metric(http, "cache_use") == 0


@pytest.fixture
async def roomy(tmp_path: Path) -> AsyncIterator[openai.AsyncOpenAI]:
    """A model whose context has room for tools, at one token a byte."""
    config = {"model_type": "llama", "max_position_embeddings": 4096}
    async with (
        running(write_directory(tmp_path / "tiny", config)) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


PLACE = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER: Any = {"type": "function", "function": {"name": "weather", "description": "Looks.", "parameters": PLACE}}
CLOCK: Any = {"type": "function", "function": {"name": "clock"}}


async def test_an_answer_follows_its_schema(client: openai.AsyncOpenAI) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "place", "schema": PLACE, "strict": True}}
    asked: dict[str, Any] = {"model": "tiny", "messages": HELLO, "response_format": form, "max_tokens": 100}
    answers = await asyncio.gather(*(client.chat.completions.create(**asked, seed=seed) for seed in range(6)))
    for answer in answers:
        assert answer.choices[0].finish_reason == "stop"
        place = json.loads(answer.choices[0].message.content or "")
        assert place["city"] in ("Rome", "Oslo")
        assert 1 <= place["days"] <= 7
    stream = await client.chat.completions.create(**asked, seed=3, stream=True)
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
    assert text == answers[3].choices[0].message.content


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ({"regex": "[ab]{3}-[0-9]{2}"}, r"[ab]{3}-[0-9]{2}"),
        ({"choice": ["yes", "no"]}, "yes|no"),
        ({"grammar": 'start: "x" /[0-9]/ "y"'}, "x[0-9]y"),
        ({"json": {"type": "boolean"}}, "true|false"),
    ],
)
async def test_other_forms_of_an_answer(client: openai.AsyncOpenAI, outputs: dict[str, Any], expected: str) -> None:
    extra = {"structured_outputs": outputs}
    chat = await client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=50, extra_body=extra)  # pyright: ignore
    plain = await client.completions.create(model="tiny", prompt="x", max_tokens=50, extra_body=extra)
    assert re.fullmatch(expected, chat.choices[0].message.content or "")
    assert re.fullmatch(expected, plain.choices[0].text)


async def test_json_that_is_cut_off_says_so(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="tiny",
        messages=HELLO,
        response_format={"type": "json_object"},
        max_tokens=1,  # pyright: ignore
    )
    assert answer.choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": "https://example.com/a"}}}},
            "response_format",
        ),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "("}}, "structured_outputs"),
        ({"tools": [CLOCK], "structured_outputs": {"regex": "a"}}, "structured_outputs"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "objekt"}}}]},
            "tools.0.function.parameters",
        ),
    ],
)
async def test_forms_that_cannot_be_enforced_are_refused(
    http: aiohttp.ClientSession, fields: dict[str, Any], param: str
) -> None:
    async with http.post("/v1/chat/completions", json={"model": "tiny", "messages": HELLO, **fields}) as response:
        assert response.status == 400
        error = (await response.json())["error"]
    assert error["param"] == param
    assert error["message"]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
async def test_a_call_that_must_be_made_is_made_and_valid(roomy: openai.AsyncOpenAI, choice: Any) -> None:
    asked: dict[str, Any] = {
        "model": "tiny",
        "messages": HELLO,
        "tools": [WEATHER, CLOCK],
        "tool_choice": choice,
        "parallel_tool_calls": False,
        "max_tokens": 240,
    }
    for seed in range(4):
        whole = (await roomy.chat.completions.create(**asked, seed=seed)).choices[0]
        assert whole.finish_reason == "tool_calls"
        assert whole.message.content is None
        [call] = whole.message.tool_calls or []
        assert call.type == "function"
        assert call.function.name in ("weather", "clock") if choice == "required" else "weather"
        if call.function.name == "weather":
            assert json.loads(call.function.arguments)["city"] in ("Rome", "Oslo")

        name, arguments, reasons = "", "", []
        stream = await roomy.chat.completions.create(**asked, seed=seed, stream=True)
        async for chunk in stream:
            delta = chunk.choices[0].delta
            assert not delta.content
            for part in delta.tool_calls or []:
                assert part.index == 0
                name += (part.function and part.function.name) or ""
                arguments += (part.function and part.function.arguments) or ""
            reasons.append(chunk.choices[0].finish_reason)
        assert (name, arguments) == (call.function.name, call.function.arguments)
        assert reasons[-1] == "tool_calls"
        assert not any(reasons[:-1])


async def test_a_call_that_is_cut_off_is_not_reported_as_one(roomy: openai.AsyncOpenAI) -> None:
    asked: dict[str, Any] = {"model": "tiny", "messages": HELLO, "tools": [WEATHER], "tool_choice": "required"}
    answer = (await roomy.chat.completions.create(**asked, max_tokens=30)).choices[0]
    assert answer.finish_reason == "length"
    assert not answer.message.tool_calls
    stream = await roomy.chat.completions.create(**asked, max_tokens=30, stream=True)
    assert [chunk.choices[0].finish_reason async for chunk in stream][-1] == "length"


async def test_a_conversation_with_calls_goes_on(roomy: openai.AsyncOpenAI) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    messages: Any = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "noon"},
    ]
    answer = await roomy.chat.completions.create(model="tiny", messages=messages, tools=[CLOCK], max_tokens=5)
    assert answer.choices[0].finish_reason == "length"


async def test_adapters_are_loaded_asked_and_unloaded(
    http: aiohttp.ClientSession, client: openai.AsyncOpenAI, tmp_path: Path
) -> None:
    tensors = state_of(reference(CONFIGS["qwen3-grouped-yarn"]))
    write_adapter(tmp_path / "style", tensors, 1)

    async def change(what: str, **body: str) -> int:
        async with http.post(f"/v1/{what}_lora_adapter", json=body) as response:
            return response.status

    async def ask(model: str) -> str:
        answer = await client.completions.create(model=model, prompt="hello", max_tokens=10, temperature=0)
        assert answer.model == model
        return answer.choices[0].text

    assert await change("load", lora_name="style", lora_path=str(tmp_path / "style")) == 200
    assert await change("load", lora_name="style", lora_path=str(tmp_path / "style")) == 409
    assert await change("load", lora_name="other", lora_path=str(tmp_path / "nowhere")) >= 400
    assert await change("load", lora_name="other") == 400
    assert [model.id async for model in client.models.list()] == ["tiny", "tiny:style"]
    assert await ask("tiny:style") != await ask("tiny")
    assert await change("unload", lora_name="style") == 200
    assert await change("unload", lora_name="style") == 404
    with pytest.raises(openai.NotFoundError):
        await ask("tiny:style")


async def test_a_sentence_encoder_takes_no_adapters(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="a sentence encoder takes no adapters"):
        async with running("park-embed", adapters=[f"style={tmp_path}"]):
            pass


async def test_an_engine_starts_with_its_adapters(directory: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "style", state_of(reference(CONFIGS["qwen3-grouped-yarn"])), 1)
    async with (
        running(directory, adapters=[f"style={tmp_path / 'style'}"]) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        assert [model.id async for model in client.models.list()] == ["tiny", "tiny:style"]
