"""One attempt: a call sent to one endpoint, and what its outcome says about the endpoint."""

from __future__ import annotations

import time

from parkway.core.errors import DeadlineExceeded, EndpointFailed, ParkwayError
from parkway.core.trace import Span
from parkway.router.call import Call
from parkway.router.candidate import Candidate
from parkway.router.condition import Condition
from parkway.router.config import RouterConfig
from parkway.router.connection import Broken, Late
from parkway.router.connections import Connections, Unreachable
from parkway.router.pool import RETRY_AFTER_S, Pool
from parkway.router.reply import Reply

# A kept-alive connection that breaks so soon after a request was sent on it was being closed for idleness; one that
# breaks later belonged to a server that had the request and went away over it.
_IDLE_CLOSE_S = 1.0

# Codes by which an endpoint that works says that it cannot now, or that the client gave it too little time.
BUSY_CODES = frozenset({"overloaded", "draining"})
LATE_CODE = "deadline_exceeded"

# Two timers end a request at its deadline, and either may be the first.
_DEADLINE_SLACK_S = 0.05


class Sender:
    """Sends calls over `connections` and keeps the condition of the endpoints true."""

    def __init__(self, connections: Connections, config: RouterConfig) -> None:
        self._connections = connections
        self._config = config

    def replace(self, config: RouterConfig) -> None:
        """Another configuration from the next outcome on."""
        self._config = config

    async def send(self, call: Call, pool: Pool, candidate: Candidate) -> Reply:
        """One attempt. The candidate counts it as outstanding until the reply is closed.

        Raises:
            Unanswered: No answer came from this endpoint; another may be asked.
            EndpointFailed: An answer came that nobody can read.
            DeadlineExceeded: The deadline passed.
        """
        sent_at = time.monotonic()
        probing = candidate.condition is Condition.PROBING
        candidate.take()
        span = _span(call, candidate)
        try:
            if sent_at >= call.deadline:
                raise DeadlineExceeded("the request's deadline passed before an endpoint could be asked")
            response = await self._connections.ask(candidate.origin, _request(call, candidate, span), call.deadline)
        except BaseException as error:  # whatever ended the attempt, cancellation too: the count goes back
            failure = _failure(error, candidate, sent_at)
            candidate.give_back()
            if span is not None:
                span.end(failure.code if isinstance(failure, ParkwayError) else type(error).__name__)
            if not (isinstance(failure, Unanswered) and failure.counts):
                self._unheard(call, candidate, sent_at, probing)
            if failure is error:
                raise
            raise failure from error
        reply = Reply(candidate, response, span)
        try:
            _check_encoding(reply)
            if reply.status < 400:
                now = time.monotonic()
                candidate.circuit.begun()
                candidate.latency.observe(now - sent_at, now)
                if pool.usual_s is not None:
                    pool.usual_s.observe(now - sent_at)
            else:
                await self._judge(reply, candidate)
        except BaseException:
            reply.close()
            raise
        return reply

    async def _judge(self, reply: Reply, candidate: Candidate) -> None:
        """What an error says about its endpoint: its status, and what it calls itself."""
        if reply.status == 429:
            reply.spare()
            if (seconds := reply.retry_after_s) is not None:
                candidate.circuit.rest(seconds, time.monotonic())
            else:
                candidate.circuit.begun()
        elif reply.status < 500:
            candidate.circuit.begun()
        elif await reply.refusal_code() in (*BUSY_CODES, LATE_CODE):
            reply.spare()
            candidate.circuit.begun()
        else:
            reply.blame(f"it answered with status {reply.status}")

    def _unheard(self, call: Call, candidate: Candidate, sent_at: float, probing: bool) -> None:
        """An attempt ended before anything was known. Held against the endpoint only if it had time enough."""
        now = time.monotonic()
        waited_s = now - sent_at
        if now >= call.deadline - _DEADLINE_SLACK_S and waited_s >= self._config.breaker.slow_s:
            candidate.circuit.failed(f"it had not begun its answer after {waited_s:.3g} s", now)
        elif probing:
            candidate.circuit.given_up(now)


def _check_encoding(reply: Reply) -> None:
    """Raises: EndpointFailed."""
    if "content-encoding" in reply.headers and reply.headers["content-encoding"] != "identity":
        reply.blame("it compressed its answer although none was asked for")
        raise EndpointFailed(f"endpoint {reply.endpoint.endpoint_id} compressed its answer although none was asked for")


def _failure(error: BaseException, candidate: Candidate, sent_at: float) -> BaseException:
    """What the end of an attempt means to who made it; a connection that failed is held against its endpoint."""
    if isinstance(error, Unreachable | Broken):
        now = time.monotonic()
        failure = _unanswered(error, now - sent_at)
        if failure.counts:
            candidate.circuit.failed(failure.fault, now)
        candidate.suspect(failure.fault)
        return failure
    if isinstance(error, Late):
        return DeadlineExceeded(
            f"endpoint {candidate.endpoint.endpoint_id} had not begun its answer at the request's deadline"
        )
    return error


def _request(call: Call, candidate: Candidate, span: Span | None) -> bytes:
    """The whole request as `candidate` gets it."""
    own = f"x-request-id: {call.request_id}\r\n"
    if call.trace is not None and span is not None:
        own += f"traceparent: {call.trace.traceparent(span)}\r\n"
        if call.trace.tracestate is not None:
            own += f"tracestate: {_one_line(call.trace.tracestate)}\r\n"
    if call.client is not None and candidate.endpoint.source == "local":
        own += f"x-parkway-client: {_one_line(call.client)}\r\n"
    body = call.body_for(candidate.endpoint.upstream_model)
    fixed = candidate.head("POST", candidate.base_path + call.path)
    return b"%b%bcontent-length: %d\r\n\r\n%b" % (fixed, own.encode(), len(body), body)


def _one_line(value: str) -> str:
    """A header's value that cannot become another header."""
    return value if value.isprintable() and value.isascii() else value.encode("unicode_escape").decode()


def _span(call: Call, candidate: Candidate) -> Span | None:
    """The span of one attempt; the reply ends it."""
    if call.trace is None:
        return None
    span, endpoint = call.trace.begin("attempt", "client"), candidate.endpoint
    span.attributes = {
        "parkway.endpoint.id": endpoint.endpoint_id,
        "url.full": endpoint.url,
        "gen_ai.request.model": endpoint.model,
    }
    return span


class Unanswered(Exception):
    """An attempt ended without an answer.

    Args:
        fault: What happened, as a clause.
        unseen: Whether the endpoint cannot have begun to work on the request, so that even the same one may be asked
            again: the connection never stood, or it was an idle one that was just being closed.
        counts: Whether it says anything about the endpoint; an idle connection that is closed does not.
    """

    def __init__(self, fault: str, *, unseen: bool, counts: bool = True) -> None:
        super().__init__(fault)
        self.fault = fault
        self.unseen = unseen
        self.counts = counts

    def told(self, candidate: Candidate, attempts: int) -> EndpointFailed:
        """The error for the client."""
        tries = f" (attempt {attempts})" if attempts > 1 else ""
        return EndpointFailed(
            f"endpoint {candidate.endpoint.endpoint_id} did not answer{tries}: {self.fault}; send the request again",
            retry_after_s=RETRY_AFTER_S,
            attempts=attempts,
        )


def _unanswered(error: Unreachable | Broken, elapsed_s: float) -> Unanswered:
    """What an error means, `elapsed_s` after the request was sent."""
    if isinstance(error, Unreachable):
        return Unanswered(str(error), unseen=True)
    if not error.http:
        return Unanswered("what it sent is not HTTP", unseen=False)
    idle = error.kept_alive and elapsed_s < _IDLE_CLOSE_S
    return Unanswered("it closed the connection before its answer", unseen=idle, counts=not idle)
