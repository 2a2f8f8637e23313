"""To an endpoint of the model, with the request in the form that the endpoint should see."""

from __future__ import annotations

import logging
from functools import partial

import msgspec

from parkway.aggregate.grounding.config import terms_for
from parkway.aggregate.transcript import Transcript
from parkway.core.chat import ChatRequest
from parkway.core.completions import CompletionRequest
from parkway.core.errors import EndpointFailed, ModelNotFound, NoEndpoint, Overloaded, ParkwayError, RelayedError
from parkway.core.wire import encode, fields_of
from parkway.pipeline.exchange import Exchange
from parkway.pipeline.memory import continued, said_in, whole_conversation, without_oldest_half
from parkway.pipeline.parts import Parts
from parkway.router.router import Call, Reply

log = logging.getLogger(__name__)

_MAX_ERROR_BYTES = 256 * 1024


async def route(exchange: Exchange, parts: Parts) -> Exchange:
    """Opens the answer of one endpoint: `exchange.reply` has status and headers, its body is still to come.

    Where no endpoint of the model can answer, its fallbacks are asked one after the other. A history that is too long
    for the model is halved, oldest turns first, until it fits.

    Raises:
        ModelNotFound: Nobody serves the model; the message names the nearest one.
        NoEndpoint, Overloaded, EndpointFailed: Nobody who serves the model can be reached.
        RelayedError: The endpoint refused the request (4xx); its reason is handed on.
    """
    exchange.models = models_for(exchange, parts)
    exchange.call = _call_of(exchange)
    await _first_that_answers(exchange, parts)
    return exchange


def models_for(exchange: Exchange, parts: Parts) -> list[str]:
    """Who may answer: the model that was asked for, then those of its fallbacks that the caller may use."""
    allowed = partial(parts.permissions.allows, exchange.known_caller, "use")
    models = parts.router.models_for(exchange.known_request.model, allowed)
    if exchange.grounding is None:
        return models
    # A model that may not use words of its own does not answer for one that may.
    grounds = parts.grounds
    return [
        models[0],
        *(name for name in models[1:] if terms_for(name, grounds.config, grounds.models, None).tier == "generated"),
    ]


async def reroute(exchange: Exchange, parts: Parts, failure: ParkwayError) -> None:
    """Opens another answer where `exchange.reply` turned out to be none before the client saw anything of it.

    Raises:
        ParkwayError: `failure` itself where nobody else can answer; otherwise like `route`.
    """
    exchange.transcript = Transcript()
    exchange.first_token, exchange.closing = None, b""
    await _first_that_answers(exchange, parts, failure)


async def _first_that_answers(exchange: Exchange, parts: Parts, failure: ParkwayError | None = None) -> None:
    """Asks the first of `exchange.models`; where that cannot answer, the next. Where none can, the first says why.

    Args:
        failure: How the answer that is open now has failed.
    """
    first: ParkwayError | None = None
    while True:
        try:
            return await _ask(exchange, parts, failure)
        except ParkwayError as error:
            first = first or error
            asked, *others = exchange.models
            if not others or not _may_fall_back(error, exchange, parts):
                if first is error:
                    raise
                raise first from error
            log.info("request %s: model %s could not answer: %s", exchange.request_id, asked, error.message)
            exchange.earlier_attempts += _attempts_of(exchange, error)
        exchange.models = others
        failure = None
        if exchange.reply is not None:
            exchange.reply.close()
        parts.router.counts.add("fallbacks", exchange.known_request.model)


async def _ask(exchange: Exchange, parts: Parts, failure: ParkwayError | None) -> None:
    """Opens an answer of the first of `exchange.models`; instead of the one that has failed, if one has."""
    model = exchange.models[0]
    exchange.asked = True
    while True:
        if failure is None:
            exchange.reply = reply = await parts.router.open(exchange.known_call, model)
        else:
            another = await parts.router.open_another(exchange.known_call, exchange.known_reply)
            if another is None:
                raise failure
            exchange.reply = reply = another
        if reply.status < 400:
            return
        error = await refusal(reply)
        shortens = exchange.dialect is None or exchange.dialect.shortens
        if error.code != "context_length_exceeded" or not (exchange.history and shortens):
            if error.code == "context_length_exceeded" and exchange.grounding and exchange.grounding.shorten():
                reply.close()
                failure = None
                exchange.call = _call_of(exchange)
                continue
            raise error
        if len(exchange.models) > 1 and _may_fall_back(error, exchange, parts):
            raise error
        exchange.history = without_oldest_half(exchange.history)
        reply.close()
        failure = None
        exchange.call = _call_of(exchange)


def _call_of(exchange: Exchange) -> Call:
    """The request, as it is now."""
    return Call(
        model=exchange.known_request.model,
        path=exchange.surface.path,
        body=outgoing_body(exchange),
        request_id=exchange.request_id,
        deadline=exchange.deadline,
        trace=exchange.trace,
        client=exchange.known_caller.key_id,
        prompt_tokens=exchange.prompt_tokens,
    )


_CANNOT_NOW = ("overloaded", "draining")


def _may_fall_back(error: ParkwayError, exchange: Exchange, parts: Parts) -> bool:
    """Whether another model may do better than the one that ended in `error`."""
    if isinstance(error, NoEndpoint | Overloaded | EndpointFailed):
        return True
    if isinstance(error, ModelNotFound):  # a fallback that nobody serves now; the client did not ask for it
        return exchange.models[0] != exchange.known_request.model
    if error.code == "context_length_exceeded":
        return parts.router.falls_back_on_long_context
    return isinstance(error, RelayedError) and (error.status == 429 or error.code in _CANNOT_NOW)


def _attempts_of(exchange: Exchange, error: ParkwayError) -> int:
    """How many endpoints of the model asked now were tried."""
    if isinstance(error, EndpointFailed) and error.attempts:
        return error.attempts
    reply = exchange.reply
    return reply.attempts if reply is not None and reply.endpoint.model == exchange.models[0] else 0


def outgoing_body(exchange: Exchange) -> bytes:
    """The request as the endpoint gets it: the client's own bytes wherever nothing has to change.

    Added: the longest answer that the key's tier allows, the history of the conversation, and
    `stream_options.include_usage`, because tokens are counted for every request (the extra event is hidden from a
    client that did not ask). Removed: Parkway's own fields.
    """
    request = exchange.known_request
    chat = request if isinstance(request, ChatRequest) else None
    changes: dict[str, object] = {}
    if exchange.max_output_tokens is not None:
        newer = chat is not None and chat.max_completion_tokens is not None
        changes["max_completion_tokens" if newer else "max_tokens"] = exchange.max_output_tokens
    if chat is not None and chat.conversation is not None:
        changes["messages"] = whole_conversation(exchange.history, chat.messages)
    elif chat is not None and exchange.history:
        changes["messages"] = continued(exchange.history, chat.messages)
    if chat is not None and exchange.grounding is not None:
        changes["messages"] = exchange.grounding.prompt(said_in(exchange, chat))
    if exchange.stream and not wants_usage(exchange):
        changes["stream_options"] = {"include_usage": True}
    own = chat is not None and not (chat.conversation is None and chat.knowledge is None and chat.grounding is None)
    if not changes and not own:
        return exchange.body
    fields = fields_of(exchange.body)
    fields.pop("conversation", None)
    for name in ("knowledge", "grounding"):
        fields.pop(name, None)
    if exchange.grounding is not None:
        for name in _CALLING if exchange.grounding.tools else (*_CALLING, *_OF_TOOLS):
            fields.pop(name, None)
    return encode({**fields, **{name: msgspec.Raw(encode(value)) for name, value in changes.items()}})


_CALLING = ("functions", "function_call", "web_search_options")
_OF_TOOLS = ("tools", "tool_choice", "parallel_tool_calls")
"""What could have a model do more than answer, and what may where a client offers tools."""


def wants_usage(exchange: Exchange) -> bool:
    """Whether the client asked for the token counts at the end of its stream."""
    request = exchange.request
    if not isinstance(request, ChatRequest | CompletionRequest) or request.stream_options is None:
        return False
    return request.stream_options.include_usage


class _ErrorObject(msgspec.Struct):
    message: str = ""
    type: str | None = None
    code: str | int | None = None
    param: str | None = None


class _ErrorBody(msgspec.Struct):
    error: _ErrorObject | str | None = None
    message: str | None = None
    detail: object = None


async def refusal(reply: Reply) -> ParkwayError:
    """What to tell the client when an endpoint answered with an error status.

    Its own 4xx reasons are the client's business. That Parkway's credentials or the endpoint's address are wrong
    is not the client's fault: it becomes a 502.
    """
    body = await reply.read(_MAX_ERROR_BYTES)
    try:
        parsed = msgspec.json.decode(body, type=_ErrorBody)
    except (msgspec.DecodeError, UnicodeDecodeError):
        parsed = _ErrorBody()
    told = (
        parsed.error
        if isinstance(parsed.error, _ErrorObject)
        else _ErrorObject(message=parsed.error or parsed.message or (str(parsed.detail) if parsed.detail else ""))
    )
    name = reply.endpoint.endpoint_id
    reason = told.message[:2000] or f"HTTP status {reply.status}"
    if reply.status in (401, 403):
        return EndpointFailed(
            f'endpoint "{name}" refused the credentials that Parkway sends; '
            "set `api_key_env` of its model in parkway.yaml"
        )
    if reply.status in (404, 405):
        return EndpointFailed(f'endpoint "{name}" does not serve this model or route: {reason}')
    if reply.status < 500:
        return RelayedError(
            reason,
            status=reply.status,
            type=told.type or "invalid_request_error",
            code=str(told.code or "endpoint_refused"),
            param=told.param,
            retry_after_s=reply.retry_after_s,
        )
    if told.code in ("overloaded", "draining", "deadline_exceeded") and reply.status in (503, 504):
        return RelayedError(
            reason,
            status=reply.status,
            type=told.type or "server_error",
            code=str(told.code),
            retry_after_s=reply.retry_after_s or 1.0,
        )
    return EndpointFailed(f'endpoint "{name}" failed with status {reply.status}: {reason}')
