"""`/openapi.json`, generated from the wire types."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

import parkway
from parkway.aggregate.conversations import Conversation, ConversationPage, ConversationRequest
from parkway.aggregate.dialects.dialect import Dialect
from parkway.aggregate.dialects.messages import MessagesDialect
from parkway.aggregate.dialects.responses import ResponsesDialect
from parkway.core.chat import ChatChunk, ChatCompletion, ChatRequest
from parkway.core.completions import Completion, CompletionRequest
from parkway.core.embeddings import EmbeddingList, EmbeddingRequest
from parkway.core.knowledge import (
    CollectionList,
    CollectionRequest,
    CollectionStatus,
    DocumentPage,
    DocumentStatus,
    Found,
    Removed,
    Search,
)
from parkway.core.messages import (
    AnthropicError,
    AnthropicMessage,
    CountRequest,
    MessageEvent,
    MessagesRequest,
    TokenCount,
)
from parkway.core.models import Model, ModelList
from parkway.core.rerank import RerankList, RerankRequest
from parkway.core.responses import DeletedResponse, ItemPage, ResponseEvent, ResponseRequest
from parkway.core.responses import Response as ModelResponse
from parkway.feedback.scores import Feedback, FeedbackRequest
from parkway.feedback.trace_list import TracePage, TraceView
from parkway.feedback.usage import FILTERS, GROUPS, UsageReport
from parkway.gateway.administration import AuditPage, Cleared
from parkway.gateway.knowledge import MAX_ACCESS
from parkway.gateway.own import Deleted, Health
from parkway.gateway.traces import LATEST_MS, LONGEST_MS
from parkway.gateway.usage import BudgetList

_REF = "#/components/schemas/{name}"


class ErrorDetail(msgspec.Struct, kw_only=True):
    message: str
    type: str
    param: str | None
    code: str
    request_id: str


class ErrorBody(msgspec.Struct, kw_only=True):
    """Every answer with a status of 400 and above."""

    error: ErrorDetail


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method on one path, as the document describes it."""

    method: str
    path: str
    summary: str
    answer: type[Any] | None
    status: int = 200
    body: type[Any] | None = None
    event: type[Any] | None = None
    """The type of one server-sent event, where the answer may be streamed."""
    dialect: type[Dialect] | None = None
    """The protocol, where it is not OpenAI's chat."""
    error: type[Any] = ErrorBody
    """The type of an answer with a status of 400 and above."""
    query: dict[str, dict[str, Any]] = field(default_factory=dict)
    raw: bool = False
    """The body is bytes of any type."""
    open: bool = False
    """Answers without a key."""
    failures: tuple[int, ...] = ()


_MODEL_FAILURES = (400, 403, 404, 413, 502, 503, 504)
_ANTHROPIC_FAILURES = (400, 403, 404, 413, 502, 504, 529)
_KNOWLEDGE_FAILURES = (503, 504)
_PAGE = {
    "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
    "after": {"type": "string"},
}

_ORDER = {"order": {"type": "string", "enum": ["asc", "desc"], "default": "desc"}}
_TEXT = {"type": "string"}
_USAGE: dict[str, dict[str, Any]] = {
    "group_by": {"type": "string", "enum": list(GROUPS), "default": "model"},
    "from": _TEXT,
    "to": _TEXT,
    **dict.fromkeys(FILTERS, _TEXT),
}

OPERATIONS = (
    Operation(
        method="post", path="/v1/chat/completions", summary="Chat with a model", body=ChatRequest,
        answer=ChatCompletion, event=ChatChunk, failures=_MODEL_FAILURES,
    ),
    Operation(
        method="post", path="/v1/completions", summary="Continue a text", body=CompletionRequest,
        answer=Completion, event=Completion, failures=_MODEL_FAILURES,
    ),
    Operation(
        method="post", path="/v1/embeddings", summary="Embed texts", body=EmbeddingRequest,
        answer=EmbeddingList, failures=_MODEL_FAILURES,
    ),
    Operation(
        method="post", path="/v1/rerank", summary="Sort documents by how well they fit a query", body=RerankRequest,
        answer=RerankList, failures=_MODEL_FAILURES,
    ),
    Operation(
        method="post", path="/v1/responses", summary="Get a response from a model", body=ResponseRequest,
        answer=ModelResponse, event=ResponseEvent, dialect=ResponsesDialect, failures=_MODEL_FAILURES,
    ),
    Operation(
        method="get", path="/v1/responses/{response}", summary="Show a response that was kept", answer=ModelResponse,
        failures=(400, 404, 503),
    ),
    Operation(
        method="delete", path="/v1/responses/{response}", summary="Delete a response that was kept",
        answer=DeletedResponse, failures=(400, 404, 503),
    ),
    Operation(
        method="get", path="/v1/responses/{response}/input_items", summary="List what a response was made from",
        answer=ItemPage, query={**_PAGE, **_ORDER}, failures=(400, 404, 503),
    ),
    Operation(
        method="post", path="/v1/messages", summary="Get a message from a model, as Anthropic's clients do",
        body=MessagesRequest, answer=AnthropicMessage, event=MessageEvent, dialect=MessagesDialect,
        error=AnthropicError, failures=_ANTHROPIC_FAILURES,
    ),
    Operation(
        method="post", path="/v1/messages/count_tokens", summary="Count the tokens of a prompt", body=CountRequest,
        answer=TokenCount, error=AnthropicError, failures=_ANTHROPIC_FAILURES,
    ),
    Operation(method="get", path="/v1/models", summary="List the models", answer=ModelList),
    Operation(method="get", path="/v1/models/{model}", summary="Show a model", answer=Model, failures=(404,)),
    Operation(
        method="post", path="/v1/feedback", summary="Score or correct an answer", body=FeedbackRequest,
        answer=Feedback, status=201, failures=(400, 404, 413, 503, 504),
    ),
    Operation(
        method="get", path="/v1/conversations", summary="List the caller's conversations", answer=ConversationPage,
        query=_PAGE, failures=(400, 503),
    ),
    Operation(
        method="post", path="/v1/conversations", summary="Create a conversation", body=ConversationRequest,
        answer=Conversation, status=201, failures=(400, 409, 413, 503, 504),
    ),
    Operation(
        method="get", path="/v1/conversations/{conversation}", summary="Show a conversation with its messages",
        answer=Conversation, failures=(400, 404, 503),
    ),
    Operation(
        method="delete", path="/v1/conversations/{conversation}", summary="Delete a conversation",
        answer=Deleted, failures=(400, 404, 503),
    ),
    Operation(
        method="get", path="/v1/usage", summary="What was used and what it cost", answer=UsageReport, query=_USAGE,
        failures=(400, 403, 503),
    ),
    Operation(
        method="get", path="/v1/budgets", summary="List the budgets that hold for the caller", answer=BudgetList,
        failures=(503,),
    ),
    Operation(
        method="get", path="/v1/traces", summary="List the caller's requests that left a trace", answer=TracePage,
        query={
            **_PAGE,
            "since_ms": {"type": "integer", "minimum": 0, "maximum": LATEST_MS},
            "status": {"type": "string", "enum": ["ok", "error"]},
            "min_ms": {"type": "integer", "minimum": 0, "maximum": LONGEST_MS},
        },
        failures=(400, 404, 503),
    ),
    Operation(
        method="get", path="/v1/traces/{trace}", summary="Show the spans of a trace, by its id or a request's",
        answer=TraceView, failures=(404, 503),
    ),
    Operation(
        method="get", path="/v1/audit", summary="List decisions, for administrators", answer=AuditPage,
        query={
            "limit": _PAGE["limit"],
            "after": {"type": "integer", "minimum": -1, "maximum": 2**53},
            "since_ms": {"type": "integer", "minimum": 0, "maximum": 2**53},
        },
        failures=(400, 403, 503),
    ),
    Operation(
        method="delete", path="/v1/cache", summary="Clear the response cache, for administrators", answer=Cleared,
        query={"model": {"type": "string", "minLength": 1, "maxLength": 256}}, failures=(400, 403, 503),
    ),
    Operation(
        method="get", path="/v1/knowledge", summary="List the collections that the caller may search",
        answer=CollectionList, failures=_KNOWLEDGE_FAILURES,
    ),
    Operation(
        method="get", path="/v1/knowledge/{name}", summary="Show a collection and how far it is",
        answer=CollectionStatus, failures=(404, *_KNOWLEDGE_FAILURES),
    ),
    Operation(
        method="put", path="/v1/knowledge/{name}", summary="Make a collection, for administrators",
        body=CollectionRequest, answer=CollectionStatus, failures=(400, 403, 409, 413, *_KNOWLEDGE_FAILURES),
    ),
    Operation(
        method="delete", path="/v1/knowledge/{name}", answer=Removed,
        summary="Remove a collection with all that is kept of its documents, for administrators",
        failures=(403, 404, 409, *_KNOWLEDGE_FAILURES),
    ),
    Operation(
        method="get", path="/v1/knowledge/{name}/documents", summary="List the documents that the caller may see",
        answer=DocumentPage, query=_PAGE, failures=(400, 404, *_KNOWLEDGE_FAILURES),
    ),
    Operation(
        method="put", path="/v1/knowledge/{name}/documents/{uri}", raw=True, answer=DocumentStatus,
        summary="Send a document, for administrators; its type is its content type, or found out",
        query={
            "access": {"type": "array", "items": {"type": "string"}, "maxItems": MAX_ACCESS},
            "metadata": {"type": "string", "contentMediaType": "application/json"},
        },
        failures=(400, 403, 404, 409, 413, *_KNOWLEDGE_FAILURES),
    ),
    Operation(
        method="delete", path="/v1/knowledge/{name}/documents/{uri}", summary="Remove a document, for administrators",
        answer=Removed, failures=(400, 403, 404, 409, *_KNOWLEDGE_FAILURES),
    ),
    Operation(
        method="post", path="/v1/knowledge/{name}/search", summary="Find passages by words and by meaning",
        body=Search, answer=Found, failures=(400, 404, 413, *_KNOWLEDGE_FAILURES),
    ),
    Operation(method="get", path="/healthz", summary="The process is alive", answer=Health, open=True),
    Operation(
        method="get", path="/readyz", summary="The next request would be answered", answer=Health, open=True,
    ),
    Operation(method="get", path="/metrics", summary="Prometheus metrics", answer=None, failures=(403,)),
    Operation(method="get", path="/openapi.json", summary="This document", answer=None, open=True),
)  # fmt: skip


def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document of the whole surface."""
    types = {
        kind
        for operation in OPERATIONS
        for kind in (operation.body, operation.answer, operation.event, operation.error)
        if kind is not None
    }
    ordered = sorted(types, key=lambda kind: kind.__name__)
    schemas, components = msgspec.json.schema_components(ordered, ref_template=_REF)
    names = dict(zip(ordered, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _describe(operation, names)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Parkway",
            "version": parkway.__version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "OpenAI's API over your own models, and Parkway's own routes beside it.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "`parkway key show`, or a token of an identity provider",
                },
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
        "security": [{"key": []}, {"header": []}],
    }


def _describe(operation: Operation, schemas: dict[type[Any], dict[str, Any]]) -> dict[str, Any]:
    failures = operation.failures if operation.open else (401, 429, 503, *operation.failures)
    content: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}}}
    if operation.answer is not None:
        content = {"application/json": {"schema": schemas[operation.answer]}}
    elif operation.open:
        content = {"application/json": {"schema": {"type": "object"}}}
    if operation.event is not None:
        ending = operation.dialect.events_end if operation.dialect else "server-sent events, ended by `data: [DONE]`"
        content["text/event-stream"] = {
            "schema": {"description": ending},
            "x-event-schema": schemas[operation.event],
        }
    answers: dict[str, Any] = {str(operation.status): {"description": "Success", "content": content}}
    if operation.path == "/readyz":
        answers["503"] = {"description": "Not ready; `reasons` says why", "content": content}
    for status in sorted(set(failures)):
        answers[str(status)] = {
            "description": "Refused or failed; `code` says why",
            "content": {"application/json": {"schema": schemas[operation.error]}},
        }
    described: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": f"{operation.method}_{operation.path.strip('/').replace('/', '_').strip('{}')}".replace("{", ""),
        "parameters": [*_path_parameters(operation.path), *_query_parameters(operation.query)],
        "responses": answers,
    }
    if operation.body is not None:
        body = {"application/json": {"schema": schemas[operation.body]}}
        described["requestBody"] = {"required": True, "content": body}
    if operation.raw:
        binary = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
        described["requestBody"] = {"required": True, "content": binary}
    if operation.open:
        described["security"] = []
    return described


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for name in names
    ]


def _query_parameters(query: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"name": name, "in": "query", "required": False, "schema": schema} for name, schema in query.items()]


class OpenApi:
    """Serves the document; it is built at the first request and kept."""

    def __init__(self) -> None:
        self._body: bytes | None = None

    async def show(self, _: Request) -> Response:
        if self._body is None:
            self._body = msgspec.json.encode(document())
        return Response(self._body, media_type="application/json")
