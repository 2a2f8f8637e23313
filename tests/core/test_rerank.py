"""The wire form of `/v1/rerank`."""

import pytest

from parkway.core.errors import InvalidRequest
from parkway.core.rerank import RerankDocument, RerankRequest, RerankResult
from parkway.core.wire import decode, encode


def test_documents_are_strings_or_objects() -> None:
    body = b'{"model":"m","query":"q","documents":["a",{"text":"b","title":"left aside"}]}'
    assert decode(body, RerankRequest).texts() == ["a", "b"]


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        (b'"documents":["a"]', "query", "`query` is missing"),
        (b'"query":"q"', "documents", "`documents` is missing"),
        (b'"query":["q"],"documents":["a"]', "query", "expected `str`, got `array`"),
        (b'"query":"q","documents":[]', "documents", "length >= 1"),
        (b'"query":"q","documents":"a"', "documents", "expected `array`, got `str`"),
        (b'"query":"q","documents":["a",7]', "documents.1", "expected `str | object`, got `int`"),
        (b'"query":"q","documents":[{"title":"a"}]', "documents.0.text", "`documents.0.text` is missing"),
        (b'"query":"q","documents":["a"],"top_n":0', "top_n", ">= 1, got 0"),
        (b'"query":"q","documents":["a"],"max_tokens_per_doc":0', "max_tokens_per_doc", ">= 1, got 0"),
        (b'"query":"q","documents":["a"],"return_documents":"yes"', "return_documents", "expected `bool"),
    ],
)
def test_a_wrong_field_is_named(fields: bytes, param: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(b'{"model":"m",' + fields + b"}", RerankRequest)
    assert caught.value.param == param
    assert said in caught.value.message


def test_a_result_has_its_document_only_where_there_is_one() -> None:
    assert encode(RerankResult(index=2, relevance_score=0.5)) == b'{"index":2,"relevance_score":0.5}'
    whole = RerankResult(index=0, relevance_score=-1.0, document=RerankDocument(text="a"))
    assert encode(whole) == b'{"index":0,"relevance_score":-1.0,"document":{"text":"a"}}'
