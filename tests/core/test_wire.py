"""What a wrong body is answered with: the field, the value, what would be right."""

import pytest

from parkway.core.chat import ChatRequest, refuse_unsupported
from parkway.core.embeddings import EmbeddingRequest
from parkway.core.errors import InvalidRequest, MalformedJSON, UnsupportedField
from parkway.core.prompts import Prompts, prompts_of
from parkway.core.wire import decode, encode, fields_of

HELLO = b'"model":"m","messages":[{"role":"user","content":"hello"}]'


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        (b'{"model":1,"messages":[]}', "model", "expected `str`, got `int` (1)"),
        (b'{"model":"m"}', "messages", "`messages` is missing"),
        (b'{"model":"m","messages":[]}', "messages", "length >= 1"),
        (b'{"model":"m","messages":[{"role":"owner"}]}', "messages.0.role", 'got "owner"'),
        (b'{"model":"m","messages":[{"content":"x"}]}', "messages.0.role", "`messages.0.role` is missing"),
        (b"{" + HELLO + b',"temperature":2.5}', "temperature", "<= 2.0, got 2.5"),
        (b"{" + HELLO + b',"temperature":"hot"}', "temperature", "expected"),
        (b"{" + HELLO + b',"max_tokens":0}', "max_tokens", ">= 1, got 0"),
        (b"{" + HELLO + b',"stop":[1]}', "stop.0", "expected `str`"),
        (b"[1,2]", None, "expected `object`, got `array`"),
    ],
)
def test_a_wrong_field_is_named_with_its_value(body: bytes, param: str | None, said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(body, ChatRequest)
    assert caught.value.param == param
    assert said in caught.value.message


@pytest.mark.parametrize("body", [b"", b"{", b'{"model": }', b"\xff\xfe", b"hello", b'{"model":"\xff"}'])
def test_what_is_not_json_says_so(body: bytes) -> None:
    with pytest.raises(MalformedJSON):
        decode(body, ChatRequest)


def test_a_body_nested_without_end_is_refused_and_does_not_crash() -> None:
    with pytest.raises(InvalidRequest):
        decode(b"{" + HELLO + b',"metadata":' + b"[" * 100_000, ChatRequest)


def test_a_long_value_is_shortened_in_the_message() -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(b'{"model":"m","messages":"' + b"x" * 10_000 + b'"}', ChatRequest)
    assert len(caught.value.message) < 300


def test_fields_that_are_not_changed_keep_their_bytes() -> None:
    body = b'{"model":"m","seed": 12345678901234567890123, "x":  [1.10, 2e3]}'
    fields = fields_of(body)
    assert encode(fields) == b'{"model":"m","seed":12345678901234567890123,"x":[1.10, 2e3]}'


def test_an_unknown_field_names_the_nearest_one() -> None:
    request = decode(b"{" + HELLO + b"}", ChatRequest)
    with pytest.raises(InvalidRequest, match='Did you mean "temperature"'):
        refuse_unsupported(request, ["model", "messages", "temprature"])


@pytest.mark.parametrize(
    "field",
    [b'"conversation":"c"', b'"knowledge":["x"]'],
)
def test_a_field_that_would_change_the_answer_is_refused(field: bytes) -> None:
    body = b"{" + HELLO + b"," + field + b"}"
    with pytest.raises(UnsupportedField) as caught:
        refuse_unsupported(decode(body, ChatRequest), fields_of(body))
    assert caught.value.param is not None
    assert caught.value.param.encode() in field


@pytest.mark.parametrize(
    "field",
    [b'"tools":[]', b'"response_format":{"type":"text"}', b'"presence_penalty":0', b'"user":"u"', b'"store":true'],
)
def test_a_field_that_changes_nothing_is_accepted(field: bytes) -> None:
    body = b"{" + HELLO + b"," + field + b"}"
    refuse_unsupported(decode(body, ChatRequest), fields_of(body))


@pytest.mark.parametrize(
    ("value", "texts"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]])],
)
def test_prompts_come_in_four_forms(value: Prompts, texts: list[str | list[int]]) -> None:
    assert prompts_of(value, "input") == texts


@pytest.mark.parametrize("value", ["", [], [""], [[]], ["a", 1], [1, [2]], ["a", [1]]])
def test_empty_and_mixed_prompts_are_refused(value: Prompts) -> None:
    with pytest.raises(InvalidRequest) as caught:
        prompts_of(value, "input")
    assert caught.value.param == "input"


def test_embedding_input_decodes_token_ids() -> None:
    assert decode(b'{"model":"m","input":[[1,2],[3]]}', EmbeddingRequest).input == [[1, 2], [3]]
