"""Parkway's own routes: models, feedback, conversations, health, metrics."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from parkway.aggregate.conversations import Conversation, ConversationPage, ConversationRequest
from parkway.core.errors import InvalidRequest, ModelNotFound, ParkwayError, nearest
from parkway.core.models import Model, ModelList
from parkway.core.wire import decode, encode
from parkway.feedback.scores import FeedbackRequest, Scores
from parkway.gateway.body import headers_of, read_body
from parkway.gateway.config import InForce
from parkway.gateway.decision import of_own_route
from parkway.gateway.readiness import Readiness
from parkway.pipeline.parts import Current, Parts
from parkway.policy.caller import Caller

T = TypeVar("T")


class Json(Response):
    """A msgspec struct, or anything that msgspec encodes, as JSON."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        return encode(content)


class Deleted(msgspec.Struct, kw_only=True):
    id: str
    deleted: bool = True


class Health(msgspec.Struct, kw_only=True):
    """`reasons` says what is missing when `status` is not `ok`; `warnings` what is wrong although requests succeed."""

    status: str
    reasons: list[str] = []
    warnings: list[str] = []


@dataclass(frozen=True, slots=True)
class OwnRoutes:
    """The handlers; `gateway/app.py` gives each its path."""

    current: Current
    scores: Scores
    readiness: Readiness
    config: InForce
    started_s: int

    @property
    def parts(self) -> Parts:
        """The parts that are in force now."""
        return self.current.parts

    async def caller(
        self, request: Request, *, administers: bool = False, searches: str | None = None, counted: bool = True
    ) -> Caller:
        """Who asks, within the same limits as on the model routes.

        Args:
            searches: The collection of documents that is searched, or looked into.
            counted: Whether the request is counted here; if not, whoever asks counts it. One that is refused is.

        Raises:
            NotAllowed: `administers`, and the caller may not administer the installation; or it may not search.
        """
        caller: Caller | None = None
        error: ParkwayError | None = None
        headers = request.headers
        try:
            caller = await self.parts.identity.identify(headers.get("authorization"), headers.get("x-api-key"))
            request.scope["state"]["key_id"] = caller.key_id
            permissions = self.parts.permissions
            if counted or not (searches is None or permissions.allows(caller, "search", searches)):
                await self.parts.limiter.admit(caller)
            if administers:
                permissions.check(caller, "administer")
            if searches is not None:
                permissions.check(caller, "search", searches)
            return caller
        except ParkwayError as refused:
            error = refused
            raise
        finally:
            of_own_route(self.parts.audit, request, caller, error)

    async def usable_models(self, request: Request) -> list[str]:
        """The models that whoever asks may use, sorted."""
        caller = await self.caller(request)
        return await self.parts.permissions.allowed(caller, "use", self.parts.router.models())

    async def body(self, request: Request, cls: type[T]) -> T:
        """The request body as `cls`, within the limits on size and time."""
        limit, timeout_s = self.parts.bounds.max_body_bytes, self.config.gateway.body_timeout_s
        return decode(await read_body(headers_of(request.scope), request.receive, limit, timeout_s), cls)

    async def list_models(self, request: Request) -> Response:
        return Json(ModelList(data=[self._model(name) for name in await self.usable_models(request)]))

    async def show_model(self, request: Request) -> Response:
        known = await self.usable_models(request)
        name: str = request.path_params["model"]
        if name not in known:
            raise ModelNotFound(f'model "{name[:128]}" does not exist.{nearest(name, known)}', param="model")
        return Json(self._model(name))

    def _model(self, name: str) -> Model:
        return Model(id=name, created=self.started_s)

    async def give_feedback(self, request: Request) -> Response:
        caller = await self.caller(request)
        feedback = await self.body(request, FeedbackRequest)
        stored = await self.scores.add(feedback, caller.key_id)
        if self.parts.response_cache is not None and feedback.thumb == "down":
            await self.parts.response_cache.distrust(stored.request_id)
        return Json(stored, status_code=201)

    async def create_conversation(self, request: Request) -> Response:
        caller = await self.caller(request)
        new = await self.body(request, ConversationRequest)
        return Json(await self.parts.conversations.create(caller.key_id, new.id, new.title), status_code=201)

    async def list_conversations(self, request: Request) -> Response:
        caller = await self.caller(request)
        limit = integer(request, "limit", default=20, low=1, high=100)
        after = request.query_params.get("after")
        page: ConversationPage = await self.parts.conversations.list(caller.key_id, limit, after)
        return Json(page)

    async def show_conversation(self, request: Request) -> Response:
        caller = await self.caller(request)
        found: Conversation = await self.parts.conversations.get(caller.key_id, request.path_params["conversation"])
        return Json(found)

    async def delete_conversation(self, request: Request) -> Response:
        caller = await self.caller(request)
        conversation_id: str = request.path_params["conversation"]
        await self.parts.conversations.delete(caller.key_id, conversation_id)
        self.parts.audit.administer("conversation.delete", conversation_id, key_id=caller.key_id)
        return Json(Deleted(id=conversation_id))

    async def alive(self, _: Request) -> Response:
        return Json(Health(status="ok"))

    async def ready(self, _: Request) -> Response:
        reasons, warnings = self.readiness.reasons(), list(self.readiness.warnings.values())
        if reasons:
            health = Health(status="not ready", reasons=reasons, warnings=warnings)
            return Json(health, status_code=503, headers={"retry-after": "1"})
        return Json(Health(status="ok", warnings=warnings))

    async def metrics(self, request: Request) -> Response:
        await self.caller(request, administers=True)
        return Response(self.parts.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")


def integer(request: Request, name: str, *, default: int, low: int, high: int) -> int:
    """A whole number from the query, within bounds."""
    given = request.query_params.get(name)
    if given is None:
        return default
    try:
        value = int(given)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise InvalidRequest(f"`{name}`: {given[:40]!r} is not a whole number from {low} to {high}", param=name)
    return value


def now_s() -> int:
    """Seconds since 1970, for fields called `created`."""
    return int(time.time())
