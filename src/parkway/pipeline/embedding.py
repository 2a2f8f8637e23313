"""Vectors of texts, from a model of this gateway."""

from __future__ import annotations

import time

import msgspec

from parkway.core.errors import EndpointFailed
from parkway.core.ids import new_id
from parkway.core.wire import encode
from parkway.router.call import Call
from parkway.router.router import Router

_MAX_BYTES = 16 * 1024 * 1024


class _Vector(msgspec.Struct):
    embedding: list[float]


class _Vectors(msgspec.Struct):
    data: list[_Vector]


_decode = msgspec.json.Decoder(_Vectors).decode


class Embedding:
    """Asks an embedding model through the router, like a client would; on Parkway's own account."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def __call__(self, model: str, texts: list[str], timeout_s: float) -> list[list[float]]:
        """A vector for each of `texts`.

        Raises:
            ParkwayError: Nobody serves the model, or who serves it did not answer, or not with vectors.
        """
        call = Call(
            model=model,
            path="/embeddings",
            body=encode({"model": model, "input": texts, "encoding_format": "float"}),
            request_id=new_id("req"),
            deadline=time.monotonic() + timeout_s,
        )
        async with self._router.send(call) as reply:
            body = await reply.read(_MAX_BYTES)
            try:
                vectors = [each.embedding for each in _decode(body).data]
            except (msgspec.DecodeError, UnicodeDecodeError):
                vectors = []
            if len(vectors) != len(texts):
                raise EndpointFailed(f'"{model}" answered with status {reply.status} and no vectors for the texts')
            return vectors
