"""What a request says about the form of its answer, and the grammar that comes of it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from parkway.core.chat import ChatRequest, StructuredOutputs
from parkway.core.completions import CompletionRequest
from parkway.core.errors import InvalidRequest, ParkwayError, UnsupportedField
from parkway.engine.grammar import Grammar, GrammarCompiler, GrammarSpec
from parkway.engine.json_schema import JsonSchema
from parkway.engine.tool_grammar import tool_grammar
from parkway.engine.tool_parser import CallDelta, ToolParser
from parkway.engine.tools import CallFormat, ToolUse

T = TypeVar("T")

Check = Callable[[str], str | None]
"""Why a finished answer is not what was asked for; None if it is."""


@dataclass(frozen=True, slots=True)
class Structure:
    """What answers have to follow, and how a finished one is checked."""

    grammar: Grammar
    check: Check


def structure_of(
    request: ChatRequest | CompletionRequest, compiler: GrammarCompiler, use: ToolUse | None, form: CallFormat
) -> Structure | None:
    """The structure that a request asks for; None where any text will do. May take a second: not for the event loop.

    Raises:
        InvalidRequest, UnsupportedField: it is malformed, or cannot be enforced; `param` names the field.
    """
    asked = _asked(request)
    if use is None:
        if asked is None:
            return None
        spec, param = asked
        grammar = _naming(param, lambda: compiler.compile(spec))
        return Structure(grammar, grammar.check)
    otherwise: JsonSchema | None = None
    if asked is not None and not use.required:
        spec, param = asked
        if spec.kind != "json" or form.whole_answer:
            raise UnsupportedField(
                f"`{param}` together with tools that may be called is not supported here; use one of them", param=param
            )
        otherwise = _naming(param, lambda: _enforceable(spec.source))
    return _calls(compiler, use, form, otherwise)


def _calls(compiler: GrammarCompiler, use: ToolUse, form: CallFormat, otherwise: JsonSchema | None) -> Structure:
    schemas: dict[str, JsonSchema] = {}
    for index, function in enumerate(use.functions):
        place = f"tools.{index}.function.parameters"
        schemas[function.name] = _naming(place, lambda schema=function.parameters: _enforceable(json.dumps(schema)))
    lark = tool_grammar(
        form,
        [(name, schema.enforced) for name, schema in schemas.items()],
        required=use.required,
        parallel=use.parallel,
        otherwise=None if otherwise is None else otherwise.enforced,
    )
    grammar = _naming("tools", lambda: compiler.compile(GrammarSpec.tools(lark)))
    check = _CallCheck(form, {name: schema.check for name, schema in schemas.items()}, use, otherwise)
    return Structure(grammar, check)


@lru_cache(maxsize=256)
def _enforceable(schema: str) -> JsonSchema:
    """A schema, given as JSON. Kept, because an agent sends its tools again with every turn."""
    return JsonSchema(json.loads(schema))


class _CallCheck:
    """Reads the calls of a finished answer as its clients will, and validates their arguments."""

    def __init__(self, form: CallFormat, checks: dict[str, Check], use: ToolUse, otherwise: JsonSchema | None) -> None:
        self._form = form
        self._checks = checks
        self._use = use
        self._otherwise = otherwise

    def __call__(self, text: str) -> str | None:
        parser = ToolParser(self._form)
        parts = parser.feed(text)
        said = "".join(part for part in parts if isinstance(part, str)) + parser.finish()
        deltas = [part for part in parts if isinstance(part, CallDelta)]
        if parser.open:
            return "a call is not complete"
        if not parser.calls:
            if self._use.required:
                return "it calls no tool"
            return None if self._otherwise is None else self._otherwise.check(said)
        if parser.calls > 1 and not self._use.parallel:
            return "it calls more than one tool"
        for index in range(parser.calls):
            own = [delta for delta in deltas if delta.index == index]
            check = self._checks.get(own[0].name or "")
            reason = "there is no such tool" if check is None else check("".join(delta.arguments for delta in own))
            if reason is not None:
                return f"its call of {own[0].name!r}: {reason}"
        return None


def _asked(request: ChatRequest | CompletionRequest) -> tuple[GrammarSpec, str] | None:
    """The form of the text that a request asks for, and the field that says so."""
    found: list[tuple[GrammarSpec, str]] = []
    if isinstance(request, ChatRequest) and request.response_format is not None:
        spec = _response_format(request.response_format)
        found += [] if spec is None else [(spec, "response_format")]
    if request.structured_outputs is not None:
        found.append((_structured(request.structured_outputs), "structured_outputs"))
    if len(found) > 1:
        raise InvalidRequest("`response_format` and `structured_outputs`: give one of them", param="response_format")
    return found[0] if found else None


def _response_format(given: dict[str, Any]) -> GrammarSpec | None:
    param = "response_format"
    match given.get("type"):
        case "text":
            return None
        case "json_object":
            return GrammarSpec.json_object()
        case "json_schema":
            described = given.get("json_schema")
            if not isinstance(described, dict) or "schema" not in described:
                raise InvalidRequest(
                    "`response_format.json_schema.schema` is missing; give the JSON Schema of the answer",
                    param=f"{param}.json_schema",
                )
            return _naming(param, lambda: GrammarSpec.json_schema(described["schema"]))
        case other:
            raise InvalidRequest(
                f"`response_format.type` is {str(other)[:40]!r}; expected text, json_object or json_schema", param=param
            )


def _structured(given: StructuredOutputs) -> GrammarSpec:
    param = "structured_outputs"
    forms = {
        "json": given.json,
        "regex": given.regex,
        "choice": given.choice,
        "grammar": given.grammar,
    }
    named = [name for name, value in forms.items() if value is not None]
    if len(named) != 1:
        raise InvalidRequest(
            f"`{param}` has {', '.join(named) or 'nothing'}; give exactly one of {', '.join(forms)}", param=param
        )
    if given.regex is not None:
        return GrammarSpec.regex(given.regex)
    if given.choice is not None:
        choices = given.choice
        return _naming(param, lambda: GrammarSpec.choice(choices))
    if given.grammar is not None:
        return GrammarSpec.lark(given.grammar)
    return _naming(param, lambda: GrammarSpec.json_schema(given.json))


def _naming(param: str, make: Callable[[], T]) -> T:
    """What `make` makes; its errors name the field that they are about."""
    try:
        return make()
    except ParkwayError as error:
        error.param = error.param or param
        raise
