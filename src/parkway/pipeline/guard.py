"""May this be said here: guardrails look at what goes in, before anything else does."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any, TypedDict

import msgspec

from parkway.core.chat import ChatRequest
from parkway.core.completions import CompletionRequest
from parkway.core.embeddings import EmbeddingRequest
from parkway.core.errors import ContentBlocked, UnsupportedField
from parkway.core.rerank import RerankRequest
from parkway.core.wire import decode, encode, fields_of
from parkway.pipeline.exchange import Exchange, Request
from parkway.pipeline.parts import Parts
from parkway.pipeline.wording import Words, plain_texts, words_in
from parkway.policy.guardrails.config import Direction
from parkway.policy.guardrails.guard import Block, Found, Guard
from parkway.policy.guardrails.guardrails import Decision
from parkway.policy.guardrails.window import SLICE, apply

LOOP_NS = 1_000_000
"""CPU that the event loop may spend on one look: a millisecond. What takes longer goes to a thread."""

_DIGIT_NS = 4_000
"""What a digit may cost besides: numbers are parsed by the plans of several countries."""


class _Chat(TypedDict, total=False):
    messages: Any


class _Completion(TypedDict, total=False):
    prompt: Any
    suffix: Any


class _Embedding(TypedDict, total=False):
    input: Any


class _Rerank(TypedDict, total=False):
    query: Any
    documents: Any


_WORDED: Mapping[type[Request], type[Any]] = {
    ChatRequest: _Chat,
    CompletionRequest: _Completion,
    EmbeddingRequest: _Embedding,
    RerankRequest: _Rerank,
}
"""The fields of a request that have words in them, with all that clients put there: more than a typed request knows.
A request that is not here cannot be looked at."""

_ORDERS = frozenset({"system", "developer"})


async def guard(exchange: Exchange, parts: Parts) -> Exchange:
    """Has the guardrails look at the words of the request; what they redact is gone from here on.

    `exchange.body` stays the client's own bytes if nothing has to change.

    Raises:
        ContentBlocked: A guardrail does not let it pass.
        UnsupportedField: Token ids, which no guardrail can read.
    """
    if not parts.guardrails.active:
        return exchange
    rules = parts.guardrails.guard("input", exchange.known_request.model, exchange.known_caller.team)
    if rules is None:
        return exchange
    body = exchange.body
    fields: dict[str, Any] = decode(body, _WORDED[exchange.surface.request_type])
    if rules.changes:
        _refuse_tokens(fields)
    if rules.topics or _ns(rules, body) > LOOP_NS or not _passes(rules, fields):
        await _look_closely(exchange, parts, rules, fields)
    exchange.mark("guard")
    return exchange


def _passes(rules: Guard, fields: dict[str, Any]) -> bool:
    """Whether nothing is found in any of the words; false also where it takes a closer look to tell."""
    for part in fields.get("messages", (fields,)):
        own = rules.for_orders if part.get("role") in _ORDERS else rules
        texts = plain_texts(part)
        if texts is None:
            return False
        for text in texts:
            if len(text) > SLICE or not own.passes(text):
                return False
    return True


async def _look_closely(exchange: Exchange, parts: Parts, rules: Guard, fields: dict[str, Any]) -> None:
    """Looks at each of the words, and changes the request where something has to go.

    Raises:
        ContentBlocked: See `guard`.
    """
    found: Found = Counter()
    try:
        look = _Look(rules, fields, found)
        if _ns(rules, exchange.body) > LOOP_NS:
            await asyncio.to_thread(look.run)
        else:
            look.run()
        for rule, topics in rules.topics:
            finding = await topics.find(words.text for words in look.words if not _is_order(words, fields))
            if finding is not None:
                found[rule, finding.kind] += 1
                if rule.action == "block" and not topics.forgives(finding):
                    raise blocked(Block(rule, finding.kind), None)
    finally:
        report(exchange, parts, found, "input")
    if look.changed:
        changed = {name: msgspec.Raw(encode(value)) for name, value in fields.items()}
        exchange.body = encode({**fields_of(exchange.body), **changed})
        exchange.request = request = decode(exchange.body, exchange.surface.request_type)
        if exchange.dialect is not None and isinstance(request, ChatRequest):
            exchange.dialect.redacted(request.messages)


class _Look:
    """One look at the words of a request: changes `fields` in place. Runs in any thread."""

    def __init__(self, rules: Guard, fields: dict[str, Any], found: Found) -> None:
        self._rules = rules
        self._fields = fields
        self._found = found
        self.words = list(words_in(fields))
        self.changed = False

    def run(self) -> None:
        """Raises: ContentBlocked."""
        for words in self.words:
            rules = self._rules.for_orders if _is_order(words, self._fields) else self._rules
            result = apply(rules, words.text, json=words.json)
            self._found.update(result.found)
            if result.block is not None:
                raise blocked(result.block, ".".join(str(step) for step in words.path))
            if result.text is not words.text:
                words.replace(result.text)
                self.changed = True


def _ns(rules: Guard, body: bytes) -> int:
    """CPU that it takes to look at `body`, about, in nanoseconds."""
    digits = len(body) - len(body.translate(None, b"0123456789"))
    return rules.cost_ns * len(body) + _DIGIT_NS * digits


def _is_order(words: Words, fields: dict[str, Any]) -> bool:
    """Whether it is what whoever runs the application tells the model, and not data."""
    if len(words.path) < 2 or words.path[0] != "messages":
        return False
    message = fields["messages"][words.path[1]]
    return isinstance(message, dict) and message.get("role") in _ORDERS


def _refuse_tokens(fields: dict[str, Any]) -> None:
    for name in ("prompt", "input"):
        value = fields.get(name)
        if isinstance(value, list) and any(not isinstance(item, str) for item in value):
            raise UnsupportedField(
                f"`{name}`: the guardrails of this gateway cannot read token ids; send text", param=name
            )


def blocked(block: Block, param: str | None) -> ContentBlocked:
    """The refusal; says which guardrail and what kind, and not a word of the content."""
    where = f"`{param}`: " if param else ""
    return ContentBlocked(
        f'{where}the guardrail "{block.rule.name}" does not let this pass ({block.rule.check_name}: {block.kind}); '
        f"change the text, or the entry of `guardrails` in the configuration",
        param=param,
    )


def report(exchange: Exchange, parts: Parts, found: Found, direction: Direction) -> None:
    """Counts what was found, and tells the audit log."""
    caller, request = exchange.known_caller, exchange.known_request
    for (rule, kind), count in found.items():
        parts.metrics.found(rule.name, kind, rule.action, direction, count)
        parts.guardrails.audit(
            Decision(
                request_id=exchange.request_id,
                key_id=caller.key_id,
                model=request.model,
                direction=direction,
                guardrail=rule.name,
                check=rule.check_name,
                kind=kind,
                action=rule.action,
                count=count,
            )
        )
