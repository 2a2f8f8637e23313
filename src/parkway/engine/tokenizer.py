"""Text to token ids and back, without transformers."""

import json
import os
import re
from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer as FastTokenizer

from parkway.core.errors import ModelFilesError
from parkway.engine.directory import ModelDirectory

# Worker threads of its own would fight with torch for the same cores.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SEAM = "\ufdd0"
"""Splits a text for `encode`: nothing on one side joins with the other into one token. A Unicode noncharacter."""

MARKS = frozenset({"<tool_call>", "</tool_call>"})
"""Special tokens of some tokenizers that are part of an answer's text all the same: readers look for them."""

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Tokenizer:
    """A tokenizer.json with byte-level or byte-fallback decoding, and the special tokens beside it.

    Raises:
        ModelFilesError: a file is missing or malformed, or decodes in a way that is not supported.
    """

    def __init__(self, directory: ModelDirectory) -> None:
        path = directory.path / "tokenizer.json"
        try:
            text = path.read_text(encoding="utf-8")
            self._fast = FastTokenizer.from_str(text)
            layout: dict[str, Any] = json.loads(text)
        except OSError as error:
            raise ModelFilesError(f"{path}: cannot be read: {error}") from error
        except Exception as error:  # tokenizers raises bare Exception for a malformed file
            raise ModelFilesError(f"{path}: not a tokenizer: {error}") from error
        self._fast.no_truncation()
        self._fast.no_padding()
        added: dict[int, Any] = self._fast.get_added_tokens_decoder()
        self._added = {token_id: token.content for token_id, token in added.items()}
        self.special = {token.content: token_id for token_id, token in added.items() if token.special}
        self.hidden = frozenset(token_id for text, token_id in self.special.items() if text not in MARKS)
        self._byte_level, self.strip_start = _decoding(layout.get("decoder"), str(path))
        self._bytes_of = lru_cache(maxsize=1 << 16)(self._to_bytes)
        self.named = _named_tokens(directory.tokenizer_config)
        self.eos_ids = self._find_eos(directory)

    @property
    def size(self) -> int:
        """One more than the highest token id."""
        return max(self._fast.get_vocab_size(), *(token_id + 1 for token_id in self._added), 0)

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Token ids of `text`.

        Args:
            text: special tokens written in it become those tokens, unless a `SEAM` breaks them.
            special: add what the tokenizer puts around a text, such as a token for its beginning.
        """
        first, *rest = text.split(SEAM)
        token_ids = self._fast.encode(first, add_special_tokens=special).ids
        for piece in rest:
            token_ids += self._fast.encode(piece, add_special_tokens=False).ids
        return token_ids

    def break_special(self, text: str) -> str:
        """`text` with a seam in every special token, so that whoever wrote it cannot forge one."""
        text = text.replace(SEAM, "")
        for token in self.special:
            if len(token) > 1 and token in text:
                text = text.replace(token, token[0] + SEAM + token[1:])
        return text

    def bytes_of(self, token_id: int) -> bytes:
        """What the token adds to a text: UTF-8, perhaps part of a character; empty for special tokens."""
        return b"" if token_id in self.hidden else self._bytes_of(token_id)

    def text_of(self, token_id: int) -> str:
        """The token as people read it in a list of log probabilities, special tokens included."""
        return self._bytes_of(token_id).decode("utf-8", errors="replace")

    def _to_bytes(self, token_id: int) -> bytes:
        if token_id in self._added:
            return self._added[token_id].encode()
        token = self._fast.id_to_token(token_id)
        if token is None:  # the output layer is often padded beyond the vocabulary
            return b""
        if self._byte_level:
            return b"".join(_BYTE_OF.get(char, char.encode()) for char in token)
        if match := _BYTE_TOKEN.fullmatch(token):
            return bytes([int(match[1], 16)])
        return token.replace("▁", " ").encode()

    def _find_eos(self, directory: ModelDirectory) -> frozenset[int]:
        """Every token that ends an answer, wherever the model's files say so."""
        ends: set[int] = set()
        for config in (directory.generation_config, directory.config):
            value = config.get("eos_token_id")
            ends.update(item for item in (value if isinstance(value, list) else [value]) if isinstance(item, int))
        name = self.named.get("eos_token")
        if name is not None and (token_id := self._fast.token_to_id(name)) is not None:
            ends.add(token_id)
        return frozenset(ends)


def _decoding(decoder: Any, source: str) -> tuple[bool, int]:
    """Whether tokens are byte-level, and how many spaces are dropped at the start of a text."""
    steps = decoder.get("decoders", [decoder]) if isinstance(decoder, dict) else []
    kinds = [step.get("type") for step in steps]
    if "ByteLevel" in kinds:
        return True, 0
    if "Metaspace" in kinds:
        return False, 1
    if "ByteFallback" in kinds:
        strips = [step for step in steps if step.get("type") == "Strip" and step.get("content") == " "]
        return False, sum(int(step.get("start", 0)) for step in strips)
    raise ModelFilesError(
        f"{source}: decodes by {', '.join(map(str, kinds)) or 'nothing'}; the engine knows ByteLevel, ByteFallback "
        "and Metaspace"
    )


def _named_tokens(config: dict[str, Any]) -> dict[str, str]:
    """`bos_token`, `eos_token` and so on: text, or an object whose `content` is the text."""
    named: dict[str, str] = {}
    for key, value in config.items():
        content = value.get("content") if isinstance(value, dict) else value
        if key.endswith("_token") and isinstance(content, str):
            named[key] = content
    return named


def _byte_alphabet() -> dict[str, bytes]:
    """The characters by which byte-level tokenizers write bytes. Source: GPT-2, encoder.py."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): bytes([byte]) for byte in printable}
    return alphabet | {chr(256 + place): bytes([byte]) for place, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()
