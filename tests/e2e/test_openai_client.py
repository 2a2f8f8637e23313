"""The official OpenAI client against the whole product: chat, stream, embeddings, rerank, errors, time-outs, cancel."""

from __future__ import annotations

import asyncio

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.running import Parkway

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=8, temperature=0)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8
    again = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=8, temperature=0)
    assert again.choices[0].message.content == answer.choices[0].message.content


def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=20, temperature=0)
    stream = client.chat.completions.create(
        model="tiny", messages=HELLO, max_tokens=20, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content
    assert len(pieces) > 3
    assert chunks[-1].usage == whole.usage


def test_sampling_seed_stop_and_logprobs(client: openai.OpenAI) -> None:
    def ask(**options: object) -> str:
        answer = client.chat.completions.create(  # pyright: ignore[reportCallIssue, reportUnknownVariableType]
            model="tiny",
            messages=HELLO,
            max_tokens=24,
            **options,  # pyright: ignore[reportArgumentType]
        )
        return str(answer.choices[0].message.content)  # pyright: ignore[reportUnknownMemberType]

    assert ask(temperature=1, seed=7) == ask(temperature=1, seed=7)
    assert ask(temperature=1, seed=7) != ask(temperature=1, seed=8)
    whole = ask(temperature=0)
    stopped = ask(temperature=0, stop=whole[5:7])
    assert whole.startswith(stopped)
    assert whole[5:7] not in stopped
    detailed = client.chat.completions.create(
        model="tiny", messages=HELLO, max_tokens=3, temperature=0, logprobs=True, top_logprobs=2
    )
    assert detailed.choices[0].logprobs is not None
    for token in detailed.choices[0].logprobs.content or []:
        assert token.logprob <= 0
        assert token.top_logprobs[0].logprob == pytest.approx(token.logprob)


def test_completions_and_embeddings(client: openai.OpenAI) -> None:
    completion = client.completions.create(model="tiny", prompt="one two", max_tokens=4)
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 4
    near, like, far = client.embeddings.create(
        model="park-embed", input=["unpack an archive", "extract a tar file", "the weather is fine"]
    ).data

    def cosine(one: list[float], other: list[float]) -> float:
        return sum(a * b for a, b in zip(one, other, strict=True))

    assert len(near.embedding) == 384
    assert cosine(near.embedding, near.embedding) == pytest.approx(1, abs=1e-3)
    assert cosine(near.embedding, like.embedding) > cosine(near.embedding, far.embedding) + 0.2


def test_rerank(client: openai.OpenAI, parkway: Parkway) -> None:
    documents = ["the weather is fine", "extract a tar file", "tar unpacks an archive"]
    asked = {"model": "park-embed", "query": "unpack an archive", "documents": documents, "return_documents": True}
    answer = client.post("/rerank", cast_to=object, body=asked)
    assert isinstance(answer, dict)
    assert [result["index"] for result in answer["results"]] == [2, 1, 0]
    assert answer["results"][0]["document"] == {"text": "tar unpacks an archive"}
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 20
    with pytest.raises(openai.BadRequestError) as long:
        client.post("/rerank", cast_to=object, body={**asked, "documents": ["a", "word " * 300]})
    assert (long.value.code, long.value.param) == ("context_length_exceeded", "documents.1")
    assert "300 tokens" in long.value.message
    with pytest.raises(openai.BadRequestError, match="/v1/rerank"):
        client.post("/rerank", cast_to=object, body={**asked, "model": "tiny"})


def test_errors_are_the_clients_own_classes(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match='Did you mean "tiny"'):
        client.chat.completions.create(model="tinny", messages=HELLO)
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="tiny", messages=HELLO, tools=[{"type": "function"}])  # pyright: ignore
    assert (refused.value.code, refused.value.param) == ("invalid_request", "tools.0")
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "word " * 20_000}])
    assert long.value.code == "context_length_exceeded"
    assert "8192" in long.value.message
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model="park-embed", messages=HELLO)
    assert "/v1/embeddings" in wrong.value.message
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="pk-abcdefghijkl-" + "x" * 43).models.list()


def test_a_clients_time_out_frees_the_engine(client: openai.OpenAI, parkway: Parkway) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.3).chat.completions.create(model="tiny", messages=HELLO, max_tokens=8000)
    answer = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=1)
    assert answer.choices[0].finish_reason == "length"


async def test_async_streams_at_once_and_cancelled(parkway: Parkway) -> None:
    async with openai.AsyncOpenAI(base_url=f"{parkway.url}/v1", api_key=parkway.key, max_retries=0) as client:

        async def read(limit: int) -> int:
            stream = await client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=limit, stream=True)
            return len([chunk async for chunk in stream])

        counts = await asyncio.gather(*(read(limit) for limit in (1, 5, 10, 20, 40)))
        assert counts == sorted(counts)
        leaving = asyncio.ensure_future(read(8000))
        await asyncio.sleep(0.3)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert await read(3) >= 3


def test_feedback_and_stats(client: openai.OpenAI, parkway: Parkway) -> None:
    answer = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=2)
    given = client.post(
        "/feedback", cast_to=object, body={"request_id": answer.id, "score": 0.25, "correction": "better"}
    )
    assert isinstance(given, dict)
    assert given["score"] == 0.25
    shown = parkway.command("stats", "--json").stdout
    assert '"tiny"' in shown
    assert "0.25" in shown
    assert "tiny" in parkway.command("stats").stdout
