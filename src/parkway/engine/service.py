"""What an engine answers, by the kind of its model: the path of one request through the engine, top to bottom."""

import asyncio
import base64
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec
import torch

from parkway.core import wire
from parkway.core.chat import ChatRequest, StreamOptions, refuse_unsupported
from parkway.core.completions import CompletionRequest
from parkway.core.embeddings import Embedding, EmbeddingList, EmbeddingRequest
from parkway.core.errors import InternalError, InvalidRequest, ModelNotFound, ParkwayError, UnsupportedField, nearest
from parkway.core.prompts import prompts_of
from parkway.core.rerank import RerankDocument, RerankList, RerankRequest, RerankResult
from parkway.core.usage import Usage
from parkway.engine.adapters import Adapter
from parkway.engine.answer import Answer, usage_of
from parkway.engine.call import Call
from parkway.engine.chat_answer import ChatAnswer
from parkway.engine.completion_answer import CompletionAnswer
from parkway.engine.embedder import Embedder
from parkway.engine.generator import Generator
from parkway.engine.loop import EngineLoop
from parkway.engine.metrics import Metrics
from parkway.engine.sequence import Piece, Sequence
from parkway.engine.tools import may_call

Operate = Callable[[Call], Awaitable[None]]


class Service(Protocol):
    """A loaded model behind HTTP."""

    @property
    def metrics(self) -> Metrics:
        """What it counts."""
        ...

    @property
    def operations(self) -> Mapping[str, Operate]:
        """What it can do: path -> how it answers a call."""
        ...

    def models(self) -> list[str]:
        """The names that requests may give, its own first."""
        ...

    async def warm_up(self) -> None:
        """Pay for first-time set-up before the first client does."""
        ...

    def abort(self, error: ParkwayError) -> None:
        """End every request that is being answered with `error`."""
        ...

    async def close(self) -> None:
        """Stop the threads."""
        ...


class _AdapterRequest(msgspec.Struct, kw_only=True):
    """As vLLM names it; `lora_path` is a directory on the engine's machine."""

    lora_name: str
    lora_path: str | None = None


class TextService:
    """Serves chat and completions. Create it on the event loop's thread."""

    def __init__(self, generator: Generator, name: str) -> None:
        self._generator = generator
        self._name = name
        self._loop = EngineLoop(generator.engine)
        self.metrics = Metrics(generator.engine, name)
        self.operations: Mapping[str, Operate] = {
            "/v1/chat/completions": self.chat,
            "/v1/completions": self.completion,
            "/v1/load_lora_adapter": self.load_adapter,
            "/v1/unload_lora_adapter": self.unload_adapter,
        }

    def models(self) -> list[str]:
        return [self._name, *(f"{self._name}:{adapter}" for adapter in self._generator.adapters)]

    async def chat(self, call: Call) -> None:
        request = wire.decode(call.body, ChatRequest)
        adapter = self._adapter(request.model)
        refuse_unsupported(request, wire.fields_of(call.body))
        sequences = await asyncio.to_thread(self._generator.chat, request)
        answer = ChatAnswer(
            id=f"chatcmpl-{call.request_id}",
            created=int(time.time()),
            model=request.model,
            choices=len(sequences),
            logprobs=bool(request.logprobs),
            usage_asked=_usage_asked(request.stream, request.stream_options),
            tokenizer=self._generator.tokenizer,
            form=self._generator.call_format if may_call(request) else None,
        )
        await self._answer(call, answer, sequences, adapter, prompts=1, stream=bool(request.stream))

    async def completion(self, call: Call) -> None:
        request = wire.decode(call.body, CompletionRequest)
        adapter = self._adapter(request.model)
        refuse_unsupported(request, wire.fields_of(call.body))
        if request.prompt is None:
            raise InvalidRequest("`prompt` is missing; it is required", param="prompt")
        prompts = prompts_of(request.prompt, "prompt")
        sequences = await asyncio.to_thread(self._generator.completion, request, prompts)
        answer = CompletionAnswer(
            id=f"cmpl-{call.request_id}",
            created=int(time.time()),
            model=request.model,
            logprobs=request.logprobs,
            usage_asked=_usage_asked(request.stream, request.stream_options),
            tokenizer=self._generator.tokenizer,
            prompts=sequences if request.echo else (),
        )
        await self._answer(call, answer, sequences, adapter, prompts=len(prompts), stream=bool(request.stream))

    async def _answer(
        self,
        call: Call,
        answer: Answer,
        sequences: list[Sequence],
        adapter: Adapter | None,
        *,
        prompts: int,
        stream: bool,
    ) -> None:
        """Generate and send, event by event or whole."""
        for sequence in sequences:
            sequence.client = call.client
            sequence.adapter = adapter
        pieces: list[list[Piece]] = [[] for _ in sequences]
        checks = _Checks(sequences)
        # The stream begins with the first piece: what fails before it can still be answered with a status of its own.
        opening = answer.opening()
        async with self._loop.submit(sequences) as generation:
            async for batch in generation.batches():
                await checks.read(batch)
                if not stream:
                    for index, piece in batch:
                        pieces[index].append(piece)
                    continue
                events = [event for index, piece in batch if (event := answer.event(index, piece)) is not None]
                await call.events(opening + events)
                opening = []
        usage = usage_of(sequences, prompts)
        if not stream:
            await call.json(answer.whole(pieces, usage))
            return
        if answer.usage_asked:
            await call.events([answer.closing(usage)])
        await call.end()

    async def load_adapter(self, call: Call) -> None:
        asked = wire.decode(call.body, _AdapterRequest)
        if asked.lora_path is None:
            raise InvalidRequest("`lora_path` is missing; give the adapter's directory", param="lora_path")
        await asyncio.to_thread(self._generator.adapters.load, asked.lora_name, Path(asked.lora_path))
        await call.json({"id": f"{self._name}:{asked.lora_name}", "object": "model", "loaded": True})

    async def unload_adapter(self, call: Call) -> None:
        asked = wire.decode(call.body, _AdapterRequest)
        self._generator.adapters.unload(asked.lora_name)
        await call.json({"id": f"{self._name}:{asked.lora_name}", "object": "model", "loaded": False})

    def _adapter(self, model: str) -> Adapter | None:
        """The adapter that a request's `model` names, as `MODEL:ADAPTER`."""
        if model.startswith(f"{self._name}:"):
            return self._generator.adapters.get(model.removeprefix(f"{self._name}:"))
        _check_model(model, self._name)
        return None

    async def warm_up(self) -> None:
        async with self._loop.submit([self._generator.warm_up()]) as generation:
            async for _ in generation.batches():
                pass

    def abort(self, error: ParkwayError) -> None:
        self._loop.abort(error)

    async def close(self) -> None:
        await self._loop.close()


class EmbeddingService:
    """Serves embeddings, and ranks documents by them."""

    def __init__(self, embedder: Embedder, name: str) -> None:
        self._embedder = embedder
        self._name = name
        self.metrics = Metrics(embedder, name)
        self.operations: Mapping[str, Operate] = {"/v1/embeddings": self.embeddings, "/v1/rerank": self.rerank}

    def models(self) -> list[str]:
        return [self._name]

    async def embeddings(self, call: Call) -> None:
        request = wire.decode(call.body, EmbeddingRequest)
        _check_model(request.model, self._name)
        if request.dimensions not in (None, self._embedder.dimensions):
            raise UnsupportedField(
                f"`dimensions` is {request.dimensions}; this model makes {self._embedder.dimensions}",
                param="dimensions",
            )
        texts = await asyncio.to_thread(self._embedder.tokenise, prompts_of(request.input, "input"))
        vectors = await self._embedder.embed(texts)
        as_base64 = request.encoding_format == "base64"
        usage = Usage.of(sum(map(len, texts)))
        # Thousands of numbers a text: writing them down takes long enough to hold up everybody's streams.
        await call.encoded(await asyncio.to_thread(self._write, vectors, usage, as_base64=as_base64))

    async def rerank(self, call: Call) -> None:
        request = wire.decode(call.body, RerankRequest)
        _check_model(request.model, self._name)
        refuse_unsupported(request, wire.fields_of(call.body))
        texts, longest = request.texts(), request.max_tokens_per_doc
        query = await asyncio.to_thread(self._embedder.tokenise_query, request.query)
        documents = await asyncio.to_thread(self._embedder.tokenise_documents, texts, longest)
        scores = await self._embedder.rank(query, documents)
        # The sort is stable, reversed too: documents with equal scores stay in the order of the request.
        best = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)[: request.top_n]
        results = [
            RerankResult(
                index=index,
                relevance_score=scores[index],
                document=RerankDocument(text=texts[index]) if request.return_documents else None,
            )
            for index in best
        ]
        usage = Usage.of(len(query) + sum(map(len, documents)))
        answer = RerankList(id=f"rerank-{call.request_id}", model=self._name, results=results, usage=usage)
        await call.encoded(await asyncio.to_thread(wire.encode, answer))

    def _write(self, vectors: list[torch.Tensor], usage: Usage, *, as_base64: bool) -> bytes:
        data = [
            Embedding(index=index, embedding=_base64(vector) if as_base64 else vector.tolist())
            for index, vector in enumerate(vectors)
        ]
        return wire.encode(EmbeddingList(data=data, model=self._name, usage=usage))

    async def warm_up(self) -> None:
        await self._embedder.embed(self._embedder.tokenise(["warm"]))

    def abort(self, error: ParkwayError) -> None:
        self._embedder.abort(error)

    async def close(self) -> None:
        await self._embedder.close()


class _Checks:
    """Sees that answers that have to follow a form do, before their end is sent."""

    def __init__(self, sequences: list[Sequence]) -> None:
        self._sequences = sequences
        self._texts = ["" for _ in sequences]

    async def read(self, batch: list[tuple[int, Piece]]) -> None:
        """Take in what was written.

        Raises:
            InternalError: an answer has ended and is not what was asked for.
        """
        for index, piece in batch:
            check = self._sequences[index].check
            if check is None:
                continue
            self._texts[index] += piece.text
            guide = self._sequences[index].guide
            # One that was cut off, by its length or by a stop string of the client's, is not whole and need not be.
            if piece.ending != "stop" or (guide is not None and not guide.may_end):
                continue
            reason = await asyncio.to_thread(check, self._texts[index])
            if reason is not None:
                raise InternalError(f"the model's answer is not what was asked for: {reason}")


def _check_model(asked: str, name: str) -> None:
    if asked != name:
        raise ModelNotFound(
            f"no model {asked!r} here; this engine serves {name!r}.{nearest(asked, [name])}", param="model"
        )


def _usage_asked(stream: bool | None, options: StreamOptions | None) -> bool:
    if options is not None and not stream:
        raise InvalidRequest("`stream_options` needs `stream: true`", param="stream_options")
    return options is not None and options.include_usage


def _base64(vector: torch.Tensor) -> str:
    """Little-endian float32 bytes, as OpenAI sends them."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector.tolist())).decode()
