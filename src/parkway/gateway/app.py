"""The gateway as an ASGI application: which path leads where."""

from __future__ import annotations

from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from parkway.aggregate.dialects.messages import CountDialect
from parkway.core.errors import ParkwayError
from parkway.feedback.scores import Scores
from parkway.gateway.administration import AdministrationRoutes
from parkway.gateway.config import InForce
from parkway.gateway.decision import Asked, refused
from parkway.gateway.door import Door
from parkway.gateway.knowledge import KnowledgeRoutes
from parkway.gateway.models import ModelRoute
from parkway.gateway.openapi import OpenApi
from parkway.gateway.own import OwnRoutes, now_s
from parkway.gateway.readiness import Readiness
from parkway.gateway.responses import ResponseRoutes
from parkway.gateway.traced import traced
from parkway.gateway.traces import TraceRoutes
from parkway.gateway.usage import UsageRoutes
from parkway.pipeline.exchange import Surface
from parkway.pipeline.parts import Current
from parkway.store.sql import Database


def create(current: Current, scores: Scores, readiness: Readiness, config: InForce, database: Database) -> Door:
    """Builds the application. Nothing here does any work; every part comes ready to use."""
    own = OwnRoutes(current=current, scores=scores, readiness=readiness, config=config, started_s=now_s())
    used = UsageRoutes(own, database)
    traces = TraceRoutes(own, database)
    administration = AdministrationRoutes(own, database)
    knowledge = KnowledgeRoutes(own)
    document = OpenApi()
    responses = ResponseRoutes(own)
    asked = {surface.route: ModelRoute(surface, current, config) for surface in Surface}
    asked["/v1/messages/count_tokens"] = ModelRoute(Surface.MESSAGES, current, config, CountDialect)
    listed = [
        ("GET", "/v1/models", own.list_models),
        ("GET", "/v1/models/{model:path}", own.show_model),
        ("POST", "/v1/feedback", own.give_feedback),
        ("GET", "/v1/conversations", own.list_conversations),
        ("POST", "/v1/conversations", own.create_conversation),
        ("GET", "/v1/conversations/{conversation}", own.show_conversation),
        ("DELETE", "/v1/conversations/{conversation}", own.delete_conversation),
        ("GET", "/v1/responses/{response}", responses.show),
        ("DELETE", "/v1/responses/{response}", responses.delete),
        ("GET", "/v1/responses/{response}/input_items", responses.list_input),
        ("GET", "/v1/usage", used.show_usage),
        ("GET", "/v1/budgets", used.list_budgets),
        ("GET", "/v1/traces", traces.list),
        ("GET", "/v1/traces/{trace}", traces.show),
        ("GET", "/v1/audit", administration.list_audit),
        ("DELETE", "/v1/cache", administration.clear_cache),
        ("GET", "/v1/knowledge", knowledge.list),
        ("GET", "/v1/knowledge/{name}", knowledge.show),
        ("PUT", "/v1/knowledge/{name}", knowledge.add),
        ("DELETE", "/v1/knowledge/{name}", knowledge.remove),
        ("GET", "/v1/knowledge/{name}/documents", knowledge.documents),
        ("PUT", "/v1/knowledge/{name}/documents/{uri:uri}", knowledge.add_document),
        ("DELETE", "/v1/knowledge/{name}/documents/{uri:uri}", knowledge.remove_document),
        ("POST", "/v1/knowledge/{name}/search", knowledge.search),
    ]
    routes = [
        *(Route(path, route, methods=["POST"]) for path, route in asked.items()),
        *(
            Route(path, traced(current, path.replace(":path", "").replace(":uri", ""), handler), methods=[method])
            for method, path, handler in listed
        ),
        Route("/healthz", own.alive, methods=["GET"]),
        Route("/readyz", own.ready, methods=["GET"]),
        Route("/metrics", own.metrics, methods=["GET"]),
        Route("/openapi.json", document.show, methods=["GET"]),
    ]
    router = Router(routes=routes, redirect_slashes=False)

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        # The routes that carry the load are found by one look; the router walks its list for all others.
        busy = asked.get(scope["path"]) if scope["method"] == "POST" else None
        await (busy or router)(scope, receive, send)

    def note(error: ParkwayError, asked: Asked) -> None:
        refused(current.parts.audit, error, asked)

    return Door(dispatch, config, lambda: readiness.draining, note)
