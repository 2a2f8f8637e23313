"""Every error that Parkway tells anybody: a class, a code, an HTTP status, and what to do next.

An error that reaches a client is a `ParkwayError`; its body is OpenAI's error object with two additions, a stable
`code` from this file and the `request_id` under which the request was logged. Errors that only the person at the
terminal sees (`ConfigurationError`, `StartupError`) are `ParkwayError`s too and end the command with `exit_code`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar


class ParkwayError(Exception):
    """Base of all errors with a meaning to somebody outside the code.

    Args:
        message: What was wrong, with the value; what would be right; where to change it.
        param: The request field at fault, in OpenAI's dotted form (`messages.0.role`), if there is one.
        retry_after_s: When trying again makes sense; becomes the `Retry-After` header, rounded up to whole seconds.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    def to_body(self, request_id: str | None = None) -> dict[str, Any]:
        """OpenAI's error object, as a JSON-ready dict."""
        error: dict[str, Any] = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        if request_id is not None:
            error["request_id"] = request_id
        return {"error": error}

    def headers(self) -> dict[str, str]:
        """Headers that belong to the answer: `Retry-After` where trying again makes sense."""
        if self.retry_after_s is None:
            return {}
        return {"retry-after": str(max(1, -int(-self.retry_after_s // 1)))}


class InternalError(ParkwayError):
    """A defect of ours. The client learns the request id, the log has the rest."""


# The request is wrong: told to the client, who has to change it.


class InvalidRequest(ParkwayError):
    """A field has a wrong type or a value out of its range."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class MalformedJSON(InvalidRequest):
    """The body is not JSON."""

    code = "malformed_json"


class UnsupportedField(InvalidRequest):
    """A field that would change the result if it were ignored, and that is not supported."""

    code = "unsupported_field"


class PreviousResponseNotFound(InvalidRequest):
    """`previous_response_id` names no answer that the caller could go on from."""

    code = "previous_response_not_found"


class ContextLengthExceeded(InvalidRequest):
    """Prompt and answer can never fit into the model's context or into the cache."""

    code = "context_length_exceeded"


class PromptTooLong(InvalidRequest):
    """The prompt is longer than the caller's tier allows, or than every endpoint of the model takes."""

    code = "prompt_too_long"


class ContentBlocked(InvalidRequest):
    """A guardrail does not let the content pass; the message names the guardrail and the kind, never the content."""

    code = "content_blocked"


class BodyTooLarge(InvalidRequest):
    """The body is over the limit; set by `bounds.max_body_bytes`."""

    status = 413
    code = "body_too_large"


class SlowHead(InvalidRequest):
    """The headers did not arrive in time."""

    status = 408
    code = "request_timeout"


class HeadTooLarge(InvalidRequest):
    """The request line and the headers are too long together, or too many."""

    status = 431
    code = "headers_too_large"


class MalformedHTTP(InvalidRequest):
    """What was sent is not HTTP, or could be read in two ways."""

    code = "malformed_http"


class MethodNotAllowed(InvalidRequest):
    """The path exists, the method on it does not; `allow` says which ones do."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, *, allow: str = "") -> None:
        super().__init__(message)
        self.allow = allow

    def headers(self) -> dict[str, str]:
        return {**super().headers(), "allow": self.allow}


class NotFound(InvalidRequest):
    """No such path, conversation, key or request."""

    status = 404
    code = "not_found"


class ModelNotFound(NotFound):
    """No such model; the message names the nearest one."""

    code = "model_not_found"


class CollectionNotFound(NotFound):
    """No such collection of documents, or none that the caller may search: both look the same."""

    code = "collection_not_found"


class DocumentNotFound(NotFound):
    """The collection has no document of that URI."""

    code = "document_not_found"


class Conflict(InvalidRequest):
    """The thing exists already, or changed under the caller."""

    status = 409
    code = "conflict"


# The caller may not.


class NotAuthenticated(ParkwayError):
    """It is not known who asks."""

    status = 401
    type = "authentication_error"
    code = "not_authenticated"

    def headers(self) -> dict[str, str]:
        return {**super().headers(), "www-authenticate": "Bearer"}


class MissingKey(NotAuthenticated):
    """No credentials were sent."""

    code = "missing_api_key"


class InvalidKey(NotAuthenticated):
    """The credentials are unknown, revoked or malformed."""

    code = "invalid_api_key"


class ExpiredKey(NotAuthenticated):
    """A key that was good until a moment that is past."""

    code = "expired_api_key"


class InvalidToken(NotAuthenticated):
    """A token that is malformed, not meant for us, or not signed by an issuer that we know."""

    code = "invalid_token"


class ExpiredToken(InvalidToken):
    """A token that was good until a moment that is past."""

    code = "expired_token"


class NotAllowed(ParkwayError):
    """Known, and not permitted."""

    status = 403
    type = "permission_error"
    code = "not_allowed"


class RateLimited(ParkwayError):
    """Over a limit; `Retry-After` says when the next request would pass, `limits` how all limits stand, as headers."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.limits: Sequence[tuple[bytes, bytes]] = ()

    def headers(self) -> dict[str, str]:
        return {**super().headers(), **{name.decode(): value.decode() for name, value in self.limits}}


class BudgetExceeded(ParkwayError):
    """A budget is spent, or would be by this request; the message says which, how much, and when it renews."""

    status = 429
    type = "insufficient_quota"
    code = "budget_exceeded"


# Parkway or an endpoint cannot, now: told to the client, who may try again.


class Overloaded(ParkwayError):
    """A bounded queue is full, or what is in it would take longer than the request may wait."""

    status = 503
    type = "server_error"
    code = "overloaded"


class Draining(ParkwayError):
    """The process is about to stop and takes nothing new."""

    status = 503
    code = "draining"


class NoEndpoint(ParkwayError):
    """The model is known, but no endpoint that serves it is healthy."""

    status = 503
    code = "no_healthy_endpoint"


class EndpointFailed(ParkwayError):
    """The endpoint answered with something that is no answer, or not at all.

    Args:
        attempts: How many endpoints were asked before this was given up, for the log.
    """

    status = 502
    code = "endpoint_failed"

    def __init__(
        self, message: str, *, param: str | None = None, retry_after_s: float | None = None, attempts: int = 0
    ) -> None:
        super().__init__(message, param=param, retry_after_s=retry_after_s)
        self.attempts = attempts


class StreamInterrupted(EndpointFailed):
    """The endpoint went away after the first byte was sent to the client. Never retried: the client has half of it."""

    code = "stream_interrupted"


class DeadlineExceeded(ParkwayError):
    """The request took longer than its deadline."""

    status = 504
    code = "deadline_exceeded"


class IdentityUnavailable(ParkwayError):
    """The identity provider does not answer, and what is known of its keys is too old to rely on."""

    status = 503
    code = "identity_unavailable"


class StoreUnavailable(ParkwayError):
    """The database does not answer."""

    status = 503
    code = "store_unavailable"


class KnowledgeUnavailable(ParkwayError):
    """The process that owns the documents does not answer: it starts, or starts again."""

    status = 503
    code = "knowledge_unavailable"


class IndexUnavailable(ParkwayError):
    """The store of a knowledge index does not answer or is full, or another process has it; a write may have failed."""

    status = 503
    code = "index_unavailable"


class IndexDamaged(ParkwayError):
    """What lies in a knowledge index cannot be read; it has to be built anew from its documents."""

    status = 500
    code = "index_damaged"


class RelayedError(ParkwayError):
    """An endpoint's own refusal (4xx), handed on with its status, type and code."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        type: str,
        code: str,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, param=param, retry_after_s=retry_after_s)
        self.status = status  # pyright: ignore[reportAttributeAccessIssue]
        self.type = type  # pyright: ignore[reportAttributeAccessIssue]
        self.code = code  # pyright: ignore[reportAttributeAccessIssue]


# A document cannot become part of a collection: told to whoever added it, and kept beside its name.


class Unreadable(InvalidRequest):
    """A document that cannot be read; the message goes on from its name: `is empty`, `needs a password`.

    It is set aside with this reason and never stops the others.
    """

    status = 422
    code = "unreadable_document"


# Told to the person at the terminal.


class ConfigurationError(ParkwayError):
    """The configuration is wrong: file, line, key, and what would be right."""

    code = "configuration_error"
    exit_code = 2


class ChunkTooLong(ConfigurationError):
    """Chunks would be longer than their encoder reads; it would ignore the rest of each without a word."""

    code = "chunk_too_long"


class StartupError(ParkwayError):
    """Parkway cannot start: the home is not writable, the port is taken, another Parkway runs there."""

    code = "startup_error"
    exit_code = 3


class ModelFilesError(StartupError):
    """A model directory is incomplete, damaged or of a kind that is not supported."""

    code = "model_files_error"


def nearest(word: str, known: Iterable[str]) -> str:
    """` Did you mean "x"?`, or an empty string if nothing known comes near `word`."""
    near = difflib.get_close_matches(word[:200], list(known), n=1, cutoff=0.6)
    return f' Did you mean "{near[0]}"?' if near else ""
