"""Grammars of every kind, the guide of one answer, and masks of a batch."""

import json
import re
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parkway.core.errors import InvalidRequest
from parkway.engine.directory import ModelDirectory
from parkway.engine.grammar import MAX_BYTES, MAX_CHOICES, GrammarCompiler, GrammarSpec
from parkway.engine.tokenizer import Tokenizer
from tests.engine.tiny import CONFIGS, SPECIAL, byte_fallback_tokenizer, write_directory
from tests.engine.walk import Walker

VOCAB = 320  # wider than the tokenizer of the tests, as padded output layers are
SHAPE = CONFIGS["qwen2-grouped-tied"]


def make_walker(path: Path, *, tokenizer: str | None = None, eos: str | None = "<|end|>") -> Walker:
    return Walker(Tokenizer(ModelDirectory(write_directory(path, SHAPE, tokenizer=tokenizer, eos=eos))), VOCAB)


@pytest.fixture(scope="module")
def walker(tmp_path_factory: pytest.TempPathFactory) -> Walker:
    return make_walker(tmp_path_factory.mktemp("grammar") / "model")


def tokens_of(walker: Walker, text: str) -> list[int]:
    return walker.tokenizer.encode(text, special=False)


def end_of(walker: Walker) -> int:
    return min(walker.tokenizer.eos_ids)


# Kinds.


def test_json_object_allows_objects_only(walker: Walker):
    grammar = walker.compiler.compile(GrammarSpec.json_object())
    for seed in range(5):
        walk = walker.walk(grammar, seed)
        assert walk.finished
        assert isinstance(json.loads(walk.text), dict)
    assert walker.follows(grammar, '{"a": [1, {"b": null}], "ü": "🙂"}')
    assert not walker.follows(grammar, "[1]")
    assert not walker.follows(grammar, '{"a": 1')


@pytest.mark.parametrize(
    "pattern", [r"\d{3}-\d{4}", "^(?:yes|no)$", "[a-c]*x?", "é+|🙂", r"\/a\.b", r"[\w.-]+@[a-z]{2,5}"]
)
def test_regex_walks_match(walker: Walker, pattern: str):
    grammar = walker.compiler.compile(GrammarSpec.regex(pattern))
    for seed in range(4):
        walk = walker.walk(grammar, seed)
        assert walk.finished
        assert re.fullmatch(pattern, walk.text)
        assert grammar.check(walk.text) is None
    assert grammar.check("\n!") is not None


def test_choice_walks_are_choices(walker: Walker):
    choices = ["yes", "no", "yes, but", "naïve 🙂", 'say "x"\n', "<|end|>", "back\\slash", "\x7f\x01"]
    grammar = walker.compiler.compile(GrammarSpec.choice(choices))
    seen = {walker.walk(grammar, seed).text for seed in range(60)}
    assert seen == set(choices)
    assert all(walker.follows(grammar, choice) and grammar.check(choice) is None for choice in choices)
    assert grammar.check("maybe") == "it is none of the choices"


@settings(max_examples=60, deadline=None)
@given(choices=st.lists(st.text(max_size=12), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_any_texts_can_be_choices(walker: Walker, choices: list[str], seed: int):
    grammar = walker.compiler.compile(GrammarSpec.choice(choices))
    assert walker.walk(grammar, seed).text in choices
    assert all(walker.follows(grammar, choice) for choice in choices)


def test_lark_grammar(walker: Walker):
    grammar = walker.compiler.compile(
        GrammarSpec.lark('start: sum\nsum: NUMBER (("+" | "-") NUMBER)*\nNUMBER: /[0-9]{1,3}/')
    )
    for seed in range(5):
        walk = walker.walk(grammar, seed)
        assert walk.finished
        assert re.fullmatch(r"\d{1,3}([+-]\d{1,3})*", walk.text)
        assert grammar.check(walk.text) is None
    assert grammar.check("1+") is not None


# What is refused.


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (GrammarSpec.choice([]), "empty"),
        (GrammarSpec.choice(["x"] * (MAX_CHOICES + 1)), "are the most"),
        (GrammarSpec.choice(["\ud800"]), "surrogate"),
        (GrammarSpec("choice", "[1]"), "expected strings"),
        (GrammarSpec.regex("x" * (MAX_BYTES + 1)), "bytes"),
        (GrammarSpec.regex("(a"), "not closed"),
        (GrammarSpec.regex("(?=a)b"), "lookarounds"),
        (GrammarSpec.regex(r"(a)\1"), "not supported"),
        (GrammarSpec.regex("(a{1000}){1000}"), "places"),
        (GrammarSpec.lark("start: missing"), "missing"),
        (GrammarSpec.lark("nonsense ::= "), "not usable"),
        (GrammarSpec.lark('start: %json {"type": "object"}'), "%json"),
        (GrammarSpec.lark('start: "a" <|end|>'), "not usable"),
        (GrammarSpec.lark('{"grammars": [{"json_schema": {"not": {}}}]}'), "not usable"),
        (GrammarSpec.json_schema({"$ref": "#"}), "no answer can follow"),
        (GrammarSpec.json_schema([1]), "expected an object"),
        (GrammarSpec.json_schema(False), "allows no answer"),
    ],
)
def test_refused_with_a_reason(walker: Walker, spec: GrammarSpec, reason: str):
    with pytest.raises(InvalidRequest, match=re.escape(reason)):
        walker.compiler.compile(spec)


def test_what_is_not_json_is_no_schema():
    with pytest.raises(InvalidRequest, match="not JSON"):
        GrammarSpec.json_schema({"minimum": float("nan")})


def test_grammars_are_cached(walker: Walker):
    first = walker.compiler.compile(GrammarSpec.json_schema({"type": "integer"}))
    assert walker.compiler.compile(GrammarSpec.json_schema({"type": "integer"})) is first
    reordered = [{"properties": {"a": {}, "b": {}}}, {"properties": {"b": {}, "a": {}}}]
    one, two = (walker.compiler.compile(GrammarSpec.json_schema(schema)) for schema in reordered)
    assert one is not two  # the order of properties is the order of the answer


def test_compiling_in_threads_agrees(walker: Walker):
    found: list[str | None] = []

    def work(number: int) -> None:
        for maximum in range(10):
            grammar = walker.compiler.compile(GrammarSpec.json_schema({"type": "integer", "maximum": maximum}))
            found.append(grammar.check(str(maximum + 1)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 40
    assert None not in found


# Tokens.


def test_padded_and_special_tokens_are_never_allowed(walker: Walker):
    grammar = walker.compiler.compile(GrammarSpec.regex("[^\\n]*"))
    allowed = walker.allowed(grammar.start())
    special = {walker.tokenizer.special[name] for name in SPECIAL}
    assert special & set(allowed) == walker.tokenizer.eos_ids
    assert max(allowed) < walker.tokenizer.size < VOCAB


def test_a_special_token_that_a_grammar_names_by_number_is_not_allowed(walker: Walker):
    number = walker.tokenizer.special["<|user|>"]
    with pytest.raises(InvalidRequest):
        walker.compiler.compile(GrammarSpec.lark(f"start: <[{number}]>"))


def test_tokens_that_reach_over_the_end_are_not_allowed(walker: Walker):
    [joined] = [token for token in range(walker.tokenizer.size) if walker.tokenizer.bytes_of(token) == b"cat"]
    letter = tokens_of(walker, "c")[0]
    grammar = walker.compiler.compile(GrammarSpec.choice(["ca"]))
    assert walker.allowed(grammar.start()) == [letter]
    longer = walker.compiler.compile(GrammarSpec.regex("c[a-z]{0,2}"))
    assert {joined, letter} <= set(walker.allowed(longer.start()))


def test_byte_fallback_tokenizer(tmp_path: Path):
    walker = make_walker(tmp_path / "model", tokenizer=byte_fallback_tokenizer(), eos="</s>")
    schema = {"type": "object", "properties": {"hello world": {"enum": ["ä🙂", "a b c"]}}, "required": ["hello world"]}
    grammar = walker.compiler.compile(GrammarSpec.json_schema(schema | {"additionalProperties": False}))
    seen = set()
    for seed in range(12):
        walk = walker.walk(grammar, seed)
        assert walk.finished
        assert grammar.check(walk.text) is None
        seen.add(json.loads(walk.text)["hello world"])
    assert seen == {"ä🙂", "a b c"}


def test_without_an_end_token_the_guide_still_finishes(tmp_path: Path):
    walker = make_walker(tmp_path / "model", eos=None)
    walk = walker.walk(walker.compiler.compile(GrammarSpec.json_schema({"const": {"a": 1}})), 0)
    assert walk.finished
    assert json.loads(walk.text) == {"a": 1}


# The guide.


def test_an_answer_that_is_cut_is_not_finished(walker: Walker):
    grammar = walker.compiler.compile(GrammarSpec.json_schema({"type": "array", "items": {"type": "integer"}}))
    walk = walker.walk(grammar, 3, limit=2)
    assert not walk.finished
    assert grammar.check(walk.text) is not None


def test_end_is_allowed_just_when_the_answer_is_whole(walker: Walker):
    guide = walker.compiler.compile(GrammarSpec.regex("ab?")).start()
    end = end_of(walker)
    assert not guide.may_end
    assert end not in walker.allowed(guide)
    guide.accept(tokens_of(walker, "a")[0])
    assert guide.may_end
    assert not guide.finished
    assert end in walker.allowed(guide)
    guide.accept(end)
    assert guide.finished
    assert walker.allowed(guide) == [end]


def test_a_token_that_is_not_allowed_is_an_error(walker: Walker):
    grammar = walker.compiler.compile(GrammarSpec.choice(["abc"]))
    for token in (tokens_of(walker, "z")[0], end_of(walker), walker.tokenizer.special["<|user|>"], VOCAB - 1):
        guide = grammar.start()
        guide.accept(token)
        assert isinstance(guide.error, InvalidRequest)
        assert not guide.finished
        assert not guide.may_end
        assert guide.forced() == []


def test_forced_tokens_spell_what_has_to_come(walker: Walker):
    guide = walker.compiler.compile(GrammarSpec.choice(["the cat sat", "the cat ran"])).start()
    forced = guide.forced()
    assert b"the cat ".startswith(b"".join(map(walker.tokenizer.bytes_of, forced)))
    assert forced
    for token in forced:
        assert walker.allowed(guide) == [token]
        guide.accept(token)
    assert guide.error is None


def test_rollback_takes_tokens_back(walker: Walker):
    guide = walker.compiler.compile(GrammarSpec.json_schema({"enum": ["ab", "ac"]})).start()
    start = walker.allowed(guide)
    states = []
    for token in [*(tokens_of(walker, text)[0] for text in '"ac"'), end_of(walker)]:
        states.append(walker.allowed(guide))
        guide.accept(token)
    assert guide.finished
    for state in reversed(states):
        guide.rollback(1)
        assert walker.allowed(guide) == state
    assert walker.allowed(guide) == start


def test_rollback_of_several_at_once(walker: Walker):
    guide = walker.compiler.compile(GrammarSpec.regex("[ab]{4}")).start()
    for token in [*tokens_of(walker, "a"), *tokens_of(walker, "b")] * 2:
        guide.accept(token)
    guide.accept(end_of(walker))
    guide.rollback(3)
    assert not guide.finished
    assert not guide.may_end
    for token in tokens_of(walker, "b") * 2:
        guide.accept(token)
    assert guide.finished


def test_a_copy_goes_its_own_way(walker: Walker):
    guide = walker.compiler.compile(GrammarSpec.choice(["ab", "cd"])).start()
    twin = guide.copy()
    guide.accept(tokens_of(walker, "a")[0])
    twin.accept(tokens_of(walker, "c")[0])
    assert walker.allowed(guide) == tokens_of(walker, "b")
    assert walker.allowed(twin) == tokens_of(walker, "d")


# Batches.


def test_fill_masks_only_rows_with_a_guide(walker: Walker):
    specs = [GrammarSpec.choice(["a"]), GrammarSpec.choice(["b"])]
    first, second = (walker.compiler.compile(spec).start() for spec in specs)
    logits = torch.randn(4, VOCAB)
    before = logits.clone()
    walker.compiler.fill([None, first, None, second], logits)
    assert torch.equal(logits[[0, 2]], before[[0, 2]])
    for row, text in ((1, "a"), (3, "b")):
        token = tokens_of(walker, text)[0]
        assert torch.isfinite(logits[row]).nonzero().flatten().tolist() == [token]
        assert logits[row, token] == before[row, token]


def test_a_batch_gives_the_masks_of_each_alone(walker: Walker):
    sources = [{"type": "string"}, {"type": "integer"}, {"type": "object"}, {"enum": ["x", 1]}, {"type": "array"}]
    guides = [walker.compiler.compile(GrammarSpec.json_schema(schema)).start() for schema in sources]
    compiler = GrammarCompiler(walker.tokenizer, VOCAB, threads=2)
    logits = torch.zeros(len(guides), VOCAB)
    compiler.fill(guides, logits)
    together = [torch.isfinite(row).nonzero().flatten().tolist() for row in logits]
    assert together == [walker.allowed(guide) for guide in guides]


def test_an_error_ends_one_answer_and_no_other(walker: Walker):
    grammar = walker.compiler.compile(GrammarSpec.regex("a[bc]*"))
    broken, well = grammar.start(), grammar.start()
    broken.accept(tokens_of(walker, "z")[0])
    well.accept(tokens_of(walker, "a")[0])
    logits = torch.zeros(2, VOCAB)
    walker.compiler.fill([broken, well], logits)
    assert broken.error is not None
    assert torch.equal(logits[0], torch.zeros(VOCAB))
    assert well.error is None
    expected = {*tokens_of(walker, "b"), *tokens_of(walker, "c"), end_of(walker)}
    assert set(torch.isfinite(logits[1]).nonzero().flatten().tolist()) == expected
    assert grammar.start().error is None


def test_a_grammar_that_explodes_is_stopped_by_its_limits(walker: Walker):
    doubling = "".join(f"r{number}: r{number + 1} r{number + 1}\n" for number in range(24))
    rules = f'start: "a" r0 | "b"\n{doubling}r24: "x"\n'
    grammar = walker.compiler.compile(GrammarSpec.lark(rules))
    bad, good = grammar.start(), grammar.start()
    bad.accept(tokens_of(walker, "a")[0])
    while bad.error is None:  # the second step at the latest
        assert not bad.finished
        walker.compiler.fill([bad, good], torch.zeros(2, VOCAB))
        bad.accept(tokens_of(walker, "x")[0])
    assert "too many items" in bad.error.message.lower()
    assert "\n" not in bad.error.message
    assert good.error is None
    assert good.matcher.try_consume_tokens(tokens_of(walker, "b")) == 1
