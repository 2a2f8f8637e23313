"""One request on its way through the pipeline, and what has become of it so far."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Literal, Protocol

import msgspec
from msgspec import field

from parkway.aggregate.dialects.dialect import Dialect
from parkway.aggregate.dialects.messages import MessagesDialect
from parkway.aggregate.dialects.responses import ResponsesDialect
from parkway.aggregate.transcript import Transcript
from parkway.core.chat import ChatRequest, Message
from parkway.core.completions import CompletionRequest
from parkway.core.embeddings import EmbeddingRequest
from parkway.core.errors import ParkwayError
from parkway.core.rerank import RerankRequest
from parkway.core.trace import Trace
from parkway.pipeline.grounds import Grounding
from parkway.policy.caller import Caller
from parkway.policy.limiter import Reservation
from parkway.router.admission.turn import Turn
from parkway.router.router import Call, Reply

Request = ChatRequest | CompletionRequest | EmbeddingRequest | RerankRequest
Headers = list[tuple[bytes, bytes]]

Caching = Literal["on", "refresh", "off"]
"""Whether the client takes an answer that was given before: `refresh` wants a new one, which is then kept."""


class Surface(StrEnum):
    """A route that models are asked through; the value is its name in the log.

    Those that have a `dialect` are chats to everything behind the client: the request that the stages see is a
    `ChatRequest`, and so is what the endpoint gets.
    """

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    RERANK = "rerank"
    RESPONSES = "responses"
    MESSAGES = "messages"

    @property
    def route(self) -> str:
        """The path for clients."""
        return "/v1/chat/completions" if self is Surface.CHAT else f"/v1/{self.value}"

    @property
    def path(self) -> str:
        """The path under an endpoint's base URL."""
        return "/chat/completions" if self.request_type is ChatRequest else f"/{self.value}"

    @property
    def request_type(self) -> type[Request]:
        return _REQUEST_TYPES[self]

    @property
    def dialect(self) -> type[Dialect] | None:
        """How the client's protocol becomes chat; None where the endpoint speaks it itself."""
        return _DIALECTS.get(self)


_REQUEST_TYPES: dict[Surface, type[Request]] = {
    Surface.CHAT: ChatRequest,
    Surface.COMPLETIONS: CompletionRequest,
    Surface.EMBEDDINGS: EmbeddingRequest,
    Surface.RERANK: RerankRequest,
    Surface.RESPONSES: ChatRequest,
    Surface.MESSAGES: ChatRequest,
}

_STREAMED = (ChatRequest, CompletionRequest)

_DIALECTS: dict[Surface, type[Dialect]] = {Surface.RESPONSES: ResponsesDialect, Surface.MESSAGES: MessagesDialect}


class Client(Protocol):
    """Where the request came from and the answer goes; the gateway implements it over ASGI, tests over a list."""

    async def read(self, max_bytes: int) -> bytes:
        """The whole request body; raises `BodyTooLarge`."""
        ...

    async def start(self, status: int, headers: Headers) -> None:
        """Sends the status line and the headers. After it, `started` is true and nothing can be retried."""
        ...

    async def send(self, data: bytes, *, more: bool) -> None:
        """Sends a piece of the body; waits while the client reads slowly."""
        ...

    @property
    def started(self) -> bool: ...

    @property
    def finished(self) -> bool: ...

    @property
    def left(self) -> bool:
        """Whether the client has gone; then the task of the request is cancelled."""
        ...


class Exchange(msgspec.Struct, kw_only=True, eq=False):
    """What is known of a request. Each stage fills in its part.

    A struct of msgspec's although it never goes over a wire: a dataclass with so many fields takes longer to make.

    `started` and `deadline` are on the monotonic clock, in seconds; `started_ms` is since 1970. `source` is the address
    that the request came from.
    """

    request_id: str
    surface: Surface
    client: Client
    authorization: str | None
    deadline: float
    api_key: str | None = None
    dialect: Dialect | None = None
    priority: str | None = None
    agent: str | None = None
    task: str | None = None
    trace: Trace = field(default_factory=Trace)
    source: str = ""
    caching: Caching = "on"
    started: float = field(default_factory=time.monotonic)
    started_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    caller: Caller | None = None  # identify
    body: bytes = b""  # admit
    request: Request | None = None  # admit
    reservation: Reservation | None = None  # reserve; settled when the exchange ends, however it ends
    history: list[Message] = field(default_factory=list)  # remember
    grounding: Grounding | None = None  # ground; its search ends with the exchange
    cache: str | None = None  # recall: what answered instead of an endpoint of its own
    answered_by: str | None = None  # recall: the model that did, where there is no reply
    prompt_tokens: int = 0  # reserve: as estimated; remember adds the history
    max_output_tokens: int | None = None  # queue: the tier's, where the client does not ask for less
    turn: Turn | None = None  # queue; left when the exchange ends, however it ends
    call: Call | None = None  # route: what endpoints are sent
    models: list[str] = field(default_factory=list)  # route: who is asked now, then who may answer instead
    earlier_attempts: int = 0  # route: endpoints of models that could not answer
    asked: bool = False  # route: whether an endpoint was sent the request
    reply: Reply | None = None  # route; closed when the exchange ends, however it ends
    transcript: Transcript = field(default_factory=Transcript)  # infer
    first_token: float | None = None  # infer
    answer_headers: Headers = field(default_factory=Headers)  # more of the answer's headers, from any stage
    closing: bytes = b""  # infer: the end of the answer, held until what must be remembered is stored
    cost_micro_usd: int | None = None  # settle
    error: ParkwayError | None = None
    marks: list[tuple[str, float]] = field(default_factory=list)

    def mark(self, stage: str) -> None:
        """Says that `stage` is over: it took the time since the mark before. Becomes a span of the trace."""
        self.marks.append((stage, time.monotonic()))

    @property
    def stream(self) -> bool:
        return isinstance(self.request, _STREAMED) and bool(self.request.stream)

    @property
    def conversation_id(self) -> str | None:
        return self.request.conversation if isinstance(self.request, ChatRequest) else None

    @property
    def known_caller(self) -> Caller:
        """The caller, in stages after identify."""
        if self.caller is None:
            raise RuntimeError("a stage that needs the caller ran before identify")
        return self.caller

    @property
    def known_request(self) -> Request:
        """The decoded request, in stages after admit."""
        if self.request is None:
            raise RuntimeError("a stage that needs the request ran before admit")
        return self.request

    @property
    def known_call(self) -> Call:
        """What endpoints are sent, in stages after route."""
        if self.call is None:
            raise RuntimeError("a stage that needs the call ran before route")
        return self.call

    @property
    def known_reply(self) -> Reply:
        """The endpoint's reply, in stages after route."""
        if self.reply is None:
            raise RuntimeError("a stage that needs the reply ran before route")
        return self.reply
