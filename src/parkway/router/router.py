"""The router: sends a call to the best endpoint of its model, and to another one if that fails early enough."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from parkway.core.errors import DeadlineExceeded, EndpointFailed
from parkway.core.tasks import Tasks
from parkway.router.call import Call
from parkway.router.candidate import Candidate, Condition
from parkway.router.config import RouterConfig
from parkway.router.connector import new_session, was_kept_alive
from parkway.router.fleet import RETRY_AFTER_S, Fleet
from parkway.router.health import HealthChecks
from parkway.router.reply import Reply
from parkway.router.view import View
from parkway.router.waking import Wake, Waking

# Answers with which an endpoint says that another one may do better, and the codes in them that mean it.
_BUSY_STATUSES = frozenset({502, 503, 504})
_BUSY_CODES = frozenset({"overloaded", "draining"})

# A kept-alive connection that breaks so soon after a request was sent on it was being closed for idleness; one that
# breaks later belonged to a server that had the request and went away over it.
_IDLE_CLOSE_S = 1.0


class Router:
    """Sends calls to endpoints.

    Args:
        view: What there is; may change at any time.
        session: For tests and for sharing; a session that is given is not closed here.
        wake: Wakes a model whose endpoints are asleep. Without it they are as good as down.
    """

    def __init__(
        self,
        view: View,
        config: RouterConfig,
        session: aiohttp.ClientSession | None = None,
        *,
        wake: Wake | None = None,
    ) -> None:
        self._view = view
        self._config = config
        self._fleet = Fleet(view, config)
        self._given_session = session
        self._session = session
        self._tasks = Tasks("router")
        self._waking = Waking(view, wake, self._tasks) if wake is not None else None

    async def start(self) -> None:
        """Opens the pool of connections and begins to check the endpoints' health."""
        self._session = self._session or new_session(self._config)
        checks = HealthChecks(self._fleet, self._config, self._session, self._tasks)
        self._tasks.start(checks.run(), name="health")

    async def close(self) -> None:
        """Stops the checks and closes every connection, answers in flight included."""
        await self._tasks.close()
        if self._session is not None and self._given_session is None:
            await self._session.close()
            self._session = None

    def models(self) -> list[str]:
        """The names of all models, sorted."""
        return self._view.models()

    @asynccontextmanager
    async def send(self, call: Call) -> AsyncIterator[Reply]:
        """`open`, with the reply closed at the end of the context."""
        reply = await self.open(call)
        try:
            yield reply
        finally:
            reply.close()

    async def open(self, call: Call) -> Reply:
        """Sends `call`. The caller closes the reply; to close it early frees the endpoint at once.

        Raises:
            ModelNotFound, NoEndpoint, Overloaded: See `Fleet.pick`. NoEndpoint also where a model that sleeps cannot
                be woken, or not before the deadline.
            EndpointFailed: No endpoint answered, after as many attempts as make sense.
            DeadlineExceeded: The call's deadline passed before an endpoint answered.
        """
        candidate = await self._pick(call)
        tried = [candidate]
        repeated = False
        while True:
            more = len(tried) < self._config.max_attempts
            try:
                reply = await self._post(call, candidate, attempts=len(tried))
            except _Unanswered as failure:
                another = self._fleet.pick_another(call.model, tried) if more else None
                if another is None:
                    if not more or not failure.unseen or (repeated and not await self._hears_of(candidate, call)):
                        raise failure.told(candidate, len(tried)) from failure
                    if not repeated:
                        await asyncio.sleep(min(self._config.retry_pause_s, max(0.0, call.deadline - time.monotonic())))
                    repeated = True
                    another = await self._pick(call)
            else:
                if not more or reply.status not in _BUSY_STATUSES:
                    return reply
                another = await self._instead_of(reply, call.model, tried)
                if another is None:
                    return reply
                reply.close()
            candidate = another
            tried.append(candidate)

    async def _pick(self, call: Call) -> Candidate:
        """The endpoint for `call`; where the model sleeps, once it is awake. Raises like `open`."""
        while self._waking is not None and self._fleet.sleeps(call.model):
            await self._waking.wake(call.model, call.deadline)
        return self._fleet.pick(call.model)

    async def _hears_of(self, candidate: Candidate, call: Call) -> bool:
        """Whether the supervisor of a local engine that nobody can reach says what became of it: it may sleep."""
        if self._waking is None or candidate.endpoint.source != "local":
            return False
        return await self._waking.hears_of(candidate.endpoint, call.deadline)

    async def _instead_of(self, reply: Reply, model: str, tried: list[Candidate]) -> Candidate | None:
        """Another endpoint, if `reply` only says that its own is busy; the reply remains whole."""
        try:
            busy = await reply.refusal_code() in _BUSY_CODES
            return self._fleet.pick_another(model, tried) if busy else None
        except BaseException:
            reply.close()
            raise

    async def _post(self, call: Call, candidate: Candidate, attempts: int) -> Reply:
        """One attempt. The candidate counts it as outstanding until the reply is closed.

        Raises:
            _Unanswered: No answer came from this endpoint; another may be asked.
            EndpointFailed: An answer came that nobody can read.
            DeadlineExceeded: The deadline passed.
        """
        candidate.outstanding += 1
        try:
            response = await self._request(call, candidate)
        except BaseException:  # whatever ended the attempt, cancellation too: the count goes back
            candidate.outstanding -= 1
            raise
        reply = Reply(candidate, response, attempts)
        if candidate.condition is Condition.SUSPECT:
            candidate.passed()
        if response.headers.get("content-encoding", "identity") != "identity":
            reply.close()
            raise EndpointFailed(
                f"endpoint {candidate.endpoint.endpoint_id} compressed its answer although none was asked for"
            )
        return reply

    async def _request(self, call: Call, candidate: Candidate) -> aiohttp.ClientResponse:
        """Sends the call to one endpoint and waits for the headers of its answer. Raises like `_post`."""
        session, fixed = self._session, candidate.headers
        if session is None or fixed is None:
            raise RuntimeError("Router.send before Router.start, or to an endpoint that is not usable")
        sent_at = time.monotonic()
        if sent_at >= call.deadline:
            raise DeadlineExceeded("the request's deadline passed before an endpoint could be asked")
        headers = fixed.copy()
        headers["x-request-id"] = call.request_id
        if call.traceparent is not None:
            headers["traceparent"] = call.traceparent
        if call.client is not None and candidate.endpoint.source == "local":
            headers["x-parkway-client"] = call.client
        try:
            return await session.request(
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
            failure = _unanswered(error, time.monotonic() - sent_at)
            candidate.suspect(failure.fault)
            raise failure from error
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"endpoint {candidate.endpoint.endpoint_id} had not begun its answer at the request's deadline"
            ) from error


class _Unanswered(Exception):
    """An attempt ended without an answer.

    Args:
        fault: What happened, as a clause.
        unseen: Whether the endpoint cannot have begun to work on the request, so that even the same one may be asked
            again: the connection never stood, or it was an idle one that was just being closed.
    """

    def __init__(self, fault: str, *, unseen: bool) -> None:
        super().__init__(fault)
        self.fault = fault
        self.unseen = unseen

    def told(self, candidate: Candidate, attempts: int) -> EndpointFailed:
        """The error for the client."""
        tries = f" (attempt {attempts})" if attempts > 1 else ""
        return EndpointFailed(
            f"endpoint {candidate.endpoint.endpoint_id} did not answer{tries}: {self.fault}; send the request again",
            retry_after_s=RETRY_AFTER_S,
            attempts=attempts,
        )


def _unanswered(error: aiohttp.ClientError, elapsed_s: float) -> _Unanswered:
    """What aiohttp's error means, `elapsed_s` after the request was sent."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            return _Unanswered("connecting took too long", unseen=True)
        case aiohttp.ClientConnectorDNSError():
            return _Unanswered("its host name is not known", unseen=True)
        case aiohttp.ClientConnectorCertificateError():
            return _Unanswered("its certificate is not trusted", unseen=True)
        case aiohttp.ClientSSLError():
            return _Unanswered("no TLS at its https address", unseen=True)
        case aiohttp.ClientConnectorError():
            # Not the error's own text: it names the address, which is no business of the client's.
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else type(error.os_error).__name__
            return _Unanswered(f"no connection ({reason.lower()})", unseen=True)
        case aiohttp.ClientConnectionError():
            idle = was_kept_alive() and elapsed_s < _IDLE_CLOSE_S
            return _Unanswered("it closed the connection before its answer", unseen=idle)
        case aiohttp.ClientResponseError():
            return _Unanswered("what it sent is not HTTP", unseen=False)
        case _:
            return _Unanswered(type(error).__name__, unseen=False)
