"""Structured output: answers that follow a JSON Schema, a regular expression, a choice or a grammar.

A `GrammarSpec` says what is asked for, `GrammarCompiler.compile` checks it and makes a `Grammar`, and each answer
follows a `Guide` of its own, which `GrammarCompiler.fill` asks for the tokens that are allowed.
"""

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llguidance import LLMatcher, LLParserLimits
from torch import Tensor

from parkway.core.errors import InvalidRequest, UnsupportedField
from parkway.engine.guide import Guide, Masks, Vocabulary
from parkway.engine.json_check import byte_tokenizer, matches
from parkway.engine.json_schema import JsonSchema
from parkway.engine.pattern import portable
from parkway.engine.tokenizer import Tokenizer

# Compiling a schema of this size takes a second or two where it is at its worst.
MAX_BYTES = 128 << 10
MAX_CHOICES = 5_000
_CACHED = 128

# Per answer and step: about 15 ms in the lexer, 3 ms in the parser, 100 MB of states, then the answer fails.
_LIMITS = LLParserLimits(
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=200_000,
    step_max_items=50_000,
    max_items_in_row=10_000,  # four for each property that may be left out
    max_lexer_states=50_000,
    max_grammar_size=500_000,
    verbose_errors=False,
)


@dataclass(frozen=True, slots=True)
class GrammarSpec:
    """What an answer has to be.

    Every kind is enforced to the letter, so there is no difference between a strict schema and another.

    Fields:
        kind: `json` is by a schema; `lark` is llguidance's dialect of Lark; `tools` is one that was written here, whose
            schemas are enforceable.
        source: the schema or the list of choices as JSON, the expression or the grammar as it was written.
    """

    kind: Literal["json", "regex", "choice", "lark", "tools"]
    source: str

    @classmethod
    def json_object(cls) -> "GrammarSpec":
        """Any JSON object."""
        return cls.json_schema({"type": "object"})

    @classmethod
    def json_schema(cls, schema: Any) -> "GrammarSpec":
        """JSON that is valid for `schema`; properties come in the order in which the schema has them."""
        return cls("json", _to_json(schema))

    @classmethod
    def regex(cls, pattern: str) -> "GrammarSpec":
        """Text that `pattern` matches from beginning to end."""
        return cls("regex", pattern)

    @classmethod
    def choice(cls, choices: Sequence[str]) -> "GrammarSpec":
        """One of the texts."""
        return cls("choice", _to_json(list(choices)))

    @classmethod
    def lark(cls, grammar: str) -> "GrammarSpec":
        """Text by a grammar whose first rule is `start`."""
        return cls("lark", grammar)

    @classmethod
    def tools(cls, grammar: str) -> "GrammarSpec":
        """Text with calls of tools, by `tool_grammar`."""
        return cls("tools", grammar)

    @property
    def value(self) -> Any:
        """The schema, or the list of choices."""
        return json.loads(self.source)


class Grammar:
    """What answers have to follow, checked and ready to begin."""

    def __init__(self, vocabulary: Vocabulary, masks: Masks, source: str, check: Callable[[str], str | None]) -> None:
        self._vocabulary = vocabulary
        self._masks = masks
        self._source = source
        self.check = check
        """Why a finished answer is not what was asked for; None if it is."""

    def start(self) -> Guide:
        """The state at the beginning of an answer. May take a second for a large schema: not for the engine's thread.

        Raises:
            InvalidRequest: the grammar engine refuses the grammar.
        """
        # Made anew and not copied: copies share a lock, and an error of one would be an error of all.
        matcher = LLMatcher(self._vocabulary.engine, self._source, log_level=0, limits=_LIMITS)
        guide = Guide(matcher, self._masks)
        if matcher.is_error():
            raise InvalidRequest(f"the schema or grammar is not usable: {_brief(matcher.get_error())}")
        return guide


class GrammarCompiler:
    """Makes grammars for one model, and masks its scores by them. `compile` may be called from any thread.

    Args:
        tokenizer: the model's.
        vocab_size: the width of the model's scores, which may be more than the tokenizer has tokens.
        threads: for masks; by default one for every processor but a few.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, threads: int | None = None) -> None:
        self._vocabulary = Vocabulary(tokenizer, vocab_size)
        self._masks = Masks(self._vocabulary, threads)
        self._cache: OrderedDict[GrammarSpec, Grammar] = OrderedDict()
        self._lock = threading.Lock()

    def compile(self, spec: GrammarSpec) -> Grammar:
        """The grammar for `spec`, from the cache if it is there.

        Raises:
            InvalidRequest: it is malformed, too large, or nothing can satisfy it.
            UnsupportedField: it asks for what cannot be enforced.
        """
        with self._lock:
            if spec in self._cache:
                self._cache.move_to_end(spec)
                return self._cache[spec]
        grammar = self._compile(spec)
        with self._lock:
            self._cache[spec] = grammar
            if len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
        return grammar

    def fill(self, guides: Sequence[Guide | None], logits: Tensor) -> None:
        """Hide the tokens that must not come next; see `Masks.fill`."""
        self._masks.fill(guides, logits)

    def _compile(self, spec: GrammarSpec) -> Grammar:
        size = len(spec.source.encode(errors="replace"))
        if size > MAX_BYTES:
            raise InvalidRequest(f"the {spec.kind} has {size} bytes; {MAX_BYTES} are the most")
        if spec.kind == "json":
            schema = JsonSchema(spec.value)
            grammar = Grammar(self._vocabulary, self._masks, _source(json_schema=schema.enforced), schema.check)
        elif spec.kind == "tools":
            # Checked where its calls are known (`engine/structure.py`).
            grammar = Grammar(self._vocabulary, self._masks, _source(lark_grammar=spec.source), lambda _: None)
        elif spec.kind == "choice":
            choices = _choices(spec.source)
            source = _source(lark_grammar="start: " + " | ".join(map(_quoted, choices)))
            grammar = Grammar(self._vocabulary, self._masks, source, _ChoiceCheck(choices))
        else:
            source = _regex_source(spec.source) if spec.kind == "regex" else _lark_source(spec.source)
            grammar = Grammar(self._vocabulary, self._masks, source, _TextCheck(source))
        self._try(grammar)
        return grammar

    def _try(self, grammar: Grammar) -> None:
        """Some grammars are well formed, and no answer at all follows them."""
        guide = grammar.start()
        self._masks.probe(guide)
        if guide.error is not None:
            raise InvalidRequest(f"no answer can follow the schema or grammar: {guide.error.message}")


class _ChoiceCheck:
    def __init__(self, choices: list[str]) -> None:
        self._choices = frozenset(choices)

    def __call__(self, text: str) -> str | None:
        return None if text in self._choices else "it is none of the choices"


class _TextCheck:
    """Follows the grammar again, byte by byte, without the model's tokens."""

    def __init__(self, source: str) -> None:
        self._source = source
        # Refuses what a text cannot hold, such as special tokens.
        reason = LLMatcher.validate_grammar(source, byte_tokenizer(), limits=_LIMITS)
        if reason and not reason.startswith("WARNING"):
            raise InvalidRequest(f"the grammar is not usable: {_brief(reason)}")

    def __call__(self, text: str) -> str | None:
        return None if matches(self._source, text) else "it does not follow the grammar"


def _source(**grammar: Any) -> str:
    return json.dumps({"grammars": [grammar]})


def _regex_source(pattern: str) -> str:
    try:
        return LLMatcher.grammar_from_regex(portable(pattern))
    except ValueError as error:
        raise UnsupportedField(f'the regular expression "{pattern[:200]}": {error}') from error


def _lark_source(grammar: str) -> str:
    if "%json" in grammar:
        raise UnsupportedField('"%json" in a grammar is not supported: use a JSON schema as the response format')
    return _source(lark_grammar=grammar)


def _choices(source: str) -> list[str]:
    choices = json.loads(source)
    if not choices:
        raise InvalidRequest("the list of choices is empty; give at least one")
    if len(choices) > MAX_CHOICES:
        raise InvalidRequest(f"{len(choices)} choices; {MAX_CHOICES} are the most")
    for choice in choices:
        if not isinstance(choice, str):
            raise InvalidRequest(f"a choice is {type(choice).__name__}; expected strings")
        if re.search(r"[\ud800-\udfff]", choice):
            raise InvalidRequest("a choice has half of a surrogate pair, which is no text")
    return choices


def _quoted(text: str) -> str:
    """As a string of Lark, which is one of JSON but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _to_json(value: Any) -> str:
    """Compact, with the order of keys as it is: it decides the order of properties."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidRequest(f"the schema or list is not JSON: {error}") from error


def _brief(message: str) -> str:
    return " ".join(message.split())[:400]
