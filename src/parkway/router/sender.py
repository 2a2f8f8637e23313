"""One attempt: a call sent to one endpoint, and what its outcome says about the endpoint."""

from __future__ import annotations

import os
import time

import aiohttp

from parkway.core.errors import DeadlineExceeded, EndpointFailed
from parkway.router.call import Call
from parkway.router.candidate import Candidate
from parkway.router.condition import Condition
from parkway.router.config import RouterConfig
from parkway.router.connector import use_only_new, was_kept_alive
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
    """Sends calls over `session` and keeps the condition of the endpoints true."""

    def __init__(self, session: aiohttp.ClientSession, config: RouterConfig) -> None:
        self._session = session
        self._config = config

    async def send(self, call: Call, pool: Pool, candidate: Candidate, *, only_new: bool = False) -> Reply:
        """One attempt. The candidate counts it as outstanding until the reply is closed.

        Args:
            only_new: Whether it needs a connection that was not used before.

        Raises:
            Unanswered: No answer came from this endpoint; another may be asked.
            EndpointFailed: An answer came that nobody can read.
            DeadlineExceeded: The deadline passed.
        """
        sent_at = time.monotonic()
        probing = candidate.condition is Condition.PROBING
        candidate.take()
        use_only_new(only_new)
        try:
            response = await self._request(call, candidate, sent_at)
        except BaseException as error:  # whatever ended the attempt, cancellation too: the count goes back
            candidate.give_back()
            if not (isinstance(error, Unanswered) and error.counts):
                self._unheard(call, candidate, sent_at, probing)
            raise
        reply = Reply(candidate, response)
        try:
            await self._judge(reply, pool, candidate, sent_at)
        except BaseException:
            reply.close()
            raise
        return reply

    async def _judge(self, reply: Reply, pool: Pool, candidate: Candidate, sent_at: float) -> None:
        """What the headers of an answer say about its endpoint, and for an error what it calls itself."""
        now = time.monotonic()
        if reply.headers.get("content-encoding", "identity") != "identity":
            reply.blame("it compressed its answer although none was asked for")
            raise EndpointFailed(
                f"endpoint {candidate.endpoint.endpoint_id} compressed its answer although none was asked for"
            )
        if reply.status == 429:
            reply.spare()
            if (seconds := reply.retry_after_s) is not None:
                candidate.circuit.rest(seconds, now)
            else:
                candidate.circuit.begun()
        elif reply.status < 500:
            candidate.circuit.begun()
            if reply.status < 400:
                candidate.latency.observe(now - sent_at, now)
                if pool.usual_s is not None:
                    pool.usual_s.observe(now - sent_at)
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

    async def _request(self, call: Call, candidate: Candidate, sent_at: float) -> aiohttp.ClientResponse:
        """Sends the call to one endpoint and waits for the headers of its answer. Raises like `send`."""
        fixed = candidate.headers
        if fixed is None:
            raise RuntimeError("an endpoint that is not usable was picked")
        if sent_at >= call.deadline:
            raise DeadlineExceeded("the request's deadline passed before an endpoint could be asked")
        headers = fixed.copy()
        headers["x-request-id"] = call.request_id
        if call.traceparent is not None:
            headers["traceparent"] = call.traceparent
        if call.client is not None and candidate.endpoint.source == "local":
            headers["x-parkway-client"] = call.client
        try:
            return await self._session.request(
                "POST",
                candidate.url(call.path),
                data=call.body_for(candidate.endpoint.upstream_model),
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=call.deadline - sent_at, sock_connect=self._config.connect_timeout_s
                ),
            )
        except aiohttp.ClientError as error:
            now = time.monotonic()
            failure = _unanswered(error, now - sent_at)
            if failure.counts:
                candidate.circuit.failed(failure.fault, now)
            candidate.suspect(failure.fault)
            raise failure from error
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"endpoint {candidate.endpoint.endpoint_id} had not begun its answer at the request's deadline"
            ) from error


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


def _unanswered(error: aiohttp.ClientError, elapsed_s: float) -> Unanswered:
    """What aiohttp's error means, `elapsed_s` after the request was sent."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            return Unanswered("connecting took too long", unseen=True)
        case aiohttp.ClientConnectorDNSError():
            return Unanswered("its host name is not known", unseen=True)
        case aiohttp.ClientConnectorCertificateError():
            return Unanswered("its certificate is not trusted", unseen=True)
        case aiohttp.ClientSSLError():
            return Unanswered("no TLS at its https address", unseen=True)
        case aiohttp.ClientConnectorError():
            # Not the error's own text: it names the address, which is no business of the client's.
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else type(error.os_error).__name__
            return Unanswered(f"no connection ({reason.lower()})", unseen=True)
        case aiohttp.ClientConnectionError():
            idle = was_kept_alive() and elapsed_s < _IDLE_CLOSE_S
            return Unanswered("it closed the connection before its answer", unseen=idle, counts=not idle)
        case aiohttp.ClientResponseError():
            return Unanswered("what it sent is not HTTP", unseen=False)
        case _:
            return Unanswered(type(error).__name__, unseen=False)
