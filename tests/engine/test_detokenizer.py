"""Text comes out at whole characters only, and it is the text that went in."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parkway.engine.detokenizer import Detokenizer
from parkway.engine.directory import ModelDirectory
from parkway.engine.tokenizer import Tokenizer
from tests.engine.tiny import byte_fallback_tokenizer, byte_level_tokenizer


def tokenizer_in(path: Path, layout: str) -> Tokenizer:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text("{}")
    (path / "tokenizer.json").write_text(layout)
    return Tokenizer(ModelDirectory(path))


@pytest.fixture(scope="module", params=["byte-level", "byte-fallback"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    layout = byte_level_tokenizer() if request.param == "byte-level" else byte_fallback_tokenizer()
    return tokenizer_in(tmp_path_factory.mktemp(request.param), layout)


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_what_was_encoded_comes_back(tokenizer: Tokenizer, text: str) -> None:
    if "▁" in text:  # Llama's pieces write a space so; that it is not told apart is theirs
        return
    detokenizer = Detokenizer(tokenizer, fresh=True)
    text = tokenizer.break_special(text).replace("\ufdd0", "")
    token_ids = tokenizer.encode(text, special=False)
    assert "".join(map(detokenizer.feed, token_ids)) == text


@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_every_piece_is_whole_characters(tokenizer: Tokenizer, text: str) -> None:
    """One token for every byte: characters come with their last byte, and never as U+FFFD."""
    data = text.encode()
    detokenizer = Detokenizer(tokenizer, fresh=False)
    byte_ids = [_id_of_byte(tokenizer, byte) for byte in data]
    released = ""
    for count, token_id in enumerate(byte_ids, start=1):
        released += detokenizer.feed(token_id)
        whole = data[:count].decode("utf-8", errors="ignore")
        assert released == whole


@given(data=st.binary(max_size=40))
def test_bytes_that_are_no_text_break_nothing(tokenizer: Tokenizer, data: bytes) -> None:
    """What can never become a character is replaced; what may still become one waits."""
    detokenizer = Detokenizer(tokenizer, fresh=False)
    text = "".join(detokenizer.feed(_id_of_byte(tokenizer, byte)) for byte in data)
    whole = data.decode("utf-8", errors="replace")
    assert whole.startswith(text)
    # At most three bytes wait, the beginning of a character of four; each may turn out to be a replacement.
    assert len(whole) - len(text) <= 3


def _id_of_byte(tokenizer: Tokenizer, byte: int) -> int:
    if tokenizer.strip_start:  # the byte-fallback one: <unk>, <s>, </s>, then the bytes
        return 3 + byte
    found = [token_id for token_id in range(tokenizer.size) if tokenizer.bytes_of(token_id) == bytes([byte])]
    return found[0]


def test_the_space_that_begins_a_text_is_dropped_once_and_only_in_fresh_text(tmp_path: Path) -> None:
    tokenizer = tokenizer_in(tmp_path, byte_fallback_tokenizer())
    token_ids = tokenizer.encode("a", special=False)
    assert tokenizer.bytes_of(token_ids[0]) == b" "
    fresh, continued = Detokenizer(tokenizer, fresh=True), Detokenizer(tokenizer, fresh=False)
    assert "".join(map(fresh.feed, token_ids * 2)) == "a a"
    assert "".join(map(continued.feed, token_ids * 2)) == " a a"


def test_special_tokens_are_silent(tmp_path: Path) -> None:
    tokenizer = tokenizer_in(tmp_path, byte_level_tokenizer())
    detokenizer = Detokenizer(tokenizer, fresh=True)
    assert detokenizer.feed(tokenizer.special["<|end|>"]) == ""
    assert tokenizer.text_of(tokenizer.special["<|end|>"]) == "<|end|>"
