"""Chat templates: a model's own Jinja program, run in a sandbox with limits on time and size.

A template comes with the model, from whoever made the model. The sandbox keeps it away from Python; the limits
keep a loop or a string that grows without end from taking the server down.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial, wraps
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from parkway.core.errors import InvalidRequest, ModelFilesError
from parkway.engine.directory import ModelDirectory
from parkway.engine.tools import HERMES, LLAMA, CallFormat

TIME_LIMIT_S = 2.0
SIZE_LIMIT = 8 << 20  # characters, of the result and of any string on the way to it

_TICK = "parkway_tick"
_JOIN = "parkway_join"


class ChatTemplate:
    """Messages to the one text that the model was trained to continue.

    Args:
        source: the Jinja text.
        named_tokens: `bos_token`, `eos_token` and so on, as the template may name them.

    Raises:
        ModelFilesError: the template is not valid Jinja.
    """

    def __init__(self, source: str, named_tokens: Mapping[str, str]) -> None:
        self._source = source
        self._named_tokens = dict(named_tokens)
        try:
            self._template = _Sandbox().from_string(source)
        except (jinja2.TemplateError, RecursionError) as error:
            raise ModelFilesError(f"the chat template is not valid Jinja: {error}") from error

    @classmethod
    def of(cls, directory: ModelDirectory, named_tokens: Mapping[str, str]) -> "ChatTemplate | None":
        """The template that the model's files carry; None where they carry none."""
        file = directory.path / "chat_template.jinja"
        if file.is_file():
            try:
                return cls(file.read_text(encoding="utf-8"), named_tokens)
            except (OSError, UnicodeDecodeError) as error:
                raise ModelFilesError(f"{file}: cannot be read: {error}") from error
        given = directory.tokenizer_config.get("chat_template")
        if isinstance(given, list):  # several templates for several uses; ours is the one called default
            given = {item.get("name"): item.get("template") for item in given}.get("default")
        return cls(given, named_tokens) if isinstance(given, str) else None

    @property
    def call_format(self) -> CallFormat | None:
        """How the model writes calls of tools; None where the template knows no tools."""
        if HERMES.begin in self._source:
            return HERMES
        return LLAMA if "tools" in self._source and '"parameters"' in self._source else None

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        time_limit_s: float = TIME_LIMIT_S,
    ) -> str:
        """The prompt for `messages`, up to where the answer begins.

        Raises:
            InvalidRequest: the template refuses these messages, fails on them, or passes a limit.
        """
        values = {
            **self._named_tokens,
            "messages": messages,
            "add_generation_prompt": True,
            "tools": tools,
            "documents": None,
            _TICK: partial(_tick, time.monotonic() + time_limit_s, time_limit_s),
        }
        parts: list[str] = []
        size = 0
        try:
            for part in self._template.generate(values):
                size += len(part)
                _limit_size(size)
                parts.append(part)
        except jinja2.TemplateError as error:
            raise InvalidRequest(
                f"the model's chat template refuses these messages: {error}", param="messages"
            ) from error
        # A template can fail in any way that Python can; the request gets the reason, the server stays up.
        except Exception as error:
            raise InvalidRequest(
                f"the model's chat template fails on these messages: {type(error).__name__}: {error}",
                param="messages",
            ) from error
        return "".join(parts)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with what Hugging Face's templates expect, and the limits."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation])
        self.filters["tojson"] = _to_json
        # Its width hides in the text that it formats.
        self.filters.pop("format")
        for name in ("center", "indent", "wordwrap"):
            self.filters[name] = _narrow(self.filters[name])
        self.filters["replace"] = _replace
        self.filters["join"] = _join_items
        self.globals.pop("lipsum", None)
        self.globals["raise_exception"] = _raise
        self.globals["strftime_now"] = _now
        self.globals[_JOIN] = _join

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return _Limits().visit(super()._parse(source, name, filename))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Refuse an operation whose result would be larger than anything a prompt needs."""
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise SecurityError(f"the operator {operator} is not allowed here")
        if operator == "*":
            for many, times in ((left, right), (right, left)):
                if isinstance(many, str | list | tuple) and isinstance(times, int):
                    _limit_size(len(many) * times)
        if operator == "+" and isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
            _limit_size(len(left) + len(right))
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, callee: Any, /, *args: Any, **kwargs: Any) -> Any:
        """As in Jinja, but the two methods of strings that multiply lengths pass the same limits as the filters."""
        own = {key: value for key, value in kwargs.items() if key not in ("_loop_vars", "_block_vars")}
        owner, name = getattr(callee, "__self__", None), getattr(callee, "__name__", "")
        if isinstance(owner, str) and name == "replace":
            return _replace(owner, *args, **own)
        if isinstance(owner, str) and name == "join":
            return _join_items(*args, separator=owner)
        return super().call(context, callee, *args, **kwargs)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """As in Jinja; besides, no method of strings that makes a string of any asked length."""
        if isinstance(obj, str) and attr in ("center", "ljust", "rjust", "zfill", "format", "format_map", "expandtabs"):
            return False
        return super().is_safe_attribute(obj, attr, value)


class _Limits(NodeTransformer):
    """Puts a look at the clock into every loop and macro, and a look at the size into every concatenation."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        return self._ticking(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._ticking(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        return self._ticking(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        joined = nodes.Call(nodes.Name(_JOIN, "load"), node.nodes, [], None, None)
        return joined.set_lineno(node.lineno, override=True)

    def _ticking(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        tick = nodes.ExprStmt(nodes.Call(nodes.Name(_TICK, "load"), [], [], None, None))
        node.body.insert(0, tick.set_lineno(node.lineno, override=True))
        return node


class _Generation(Extension):
    """The tag that marks what an assistant wrote, which only training reads: `{% generation %}`."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tick(deadline: float, limit_s: float) -> None:
    if time.monotonic() > deadline:
        raise SecurityError(f"it ran for over {limit_s:g} s")


def _limit_size(size: int) -> None:
    if size > SIZE_LIMIT:
        raise SecurityError(f"it builds a text of over {SIZE_LIMIT} characters")


def _narrow(filter_: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that pads text, refusing to pad it by more than anybody needs."""

    @wraps(filter_)
    def narrow(*args: Any, **kwargs: Any) -> Any:
        width = max((each for each in (*args, *kwargs.values()) if isinstance(each, int)), default=0)
        if width > 200:
            raise SecurityError(f"it pads text to {width} characters; at most 200 are allowed")
        return filter_(*args, **kwargs)

    return narrow


def _join(*parts: object) -> str:
    texts = [str(part) for part in parts]
    _limit_size(sum(map(len, texts)))
    return "".join(texts)


def _join_items(items: Iterable[object], separator: str = "", attribute: str | None = None) -> str:
    if attribute is not None:
        raise SecurityError("join by attribute is not allowed here; use map(attribute=...) first")
    texts = [str(item) for item in items]
    _limit_size(sum(map(len, texts)) + len(separator) * len(texts))
    return separator.join(texts)


def _replace(text: object, old: str, new: str, count: int = -1) -> str:
    text = str(text)
    _limit_size(len(text) + text.count(old) * len(new))
    return text.replace(old, new, count)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON. Jinja's own filter escapes for HTML, which a model has never seen."""
    if isinstance(indent, int):
        indent = min(indent, 16)
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _now(pattern: str) -> str:
    return datetime.now().strftime(pattern[:200])
