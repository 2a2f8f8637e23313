"""A stream of bytes, cut anywhere, gives the same events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parkway.core.errors import EndpointFailed
from parkway.core.sse import EventSplitter, data_of, event

payloads = st.lists(st.text(alphabet='ab{}:é漢\\" ').map(lambda text: text.encode()), min_size=1, max_size=8)


@given(payloads, st.data(), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_where_the_bytes_are_cut_does_not_matter(datas: list[bytes], data: st.DataObject, end: bytes) -> None:
    stream = b"".join(event(one) for one in datas).replace(b"\n", end)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    splitter = EventSplitter()
    blocks: list[bytes] = []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        blocks += splitter.feed(stream[start:stop])
    blocks += splitter.feed(b":\n\n")[:-1]  # a lone \r at the very end waits for what follows it
    assert [data_of(block) for block in blocks if block != b":"] == datas


def test_comments_and_other_fields_are_no_data() -> None:
    assert data_of(b": keep-alive") is None
    assert data_of(b"event: ping") is None
    assert data_of(b"event: x\ndata: 1\ndata:2") == b"1\n2"


def test_an_endless_event_is_an_error_and_not_memory() -> None:
    splitter = EventSplitter(max_event_bytes=1000)
    with pytest.raises(EndpointFailed, match="1000 bytes"):
        for _ in range(20):
            splitter.feed(b"x" * 100)


def test_what_is_cut_off_is_left_over() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b'data: {"a":1}\n\ndata: {"b"') == [b'data: {"a":1}']
    assert splitter.pending == b'data: {"b"'
