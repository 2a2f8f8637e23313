"""Rows of several documents give what each document gives alone."""

import pytest
import torch

from parkway.engine.model import Decoder
from parkway.engine.shape import ModelShape
from parkway.train.packed import IGNORED, Document, PackedAttention, fill_rows, pack


def document(*tokens: int, predicted_from: int = 1) -> Document:
    return Document(torch.tensor(tokens), torch.tensor([at >= predicted_from for at in range(len(tokens))]))


def decoder(kv_heads: int) -> Decoder:
    torch.manual_seed(0)
    shape = ModelShape(
        model_type="qwen3",
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        layers=2,
        heads=4,
        kv_heads=kv_heads,
        head_dim=8,
        context=64,
        tied_embeddings=True,
        qk_norm=True,
    )
    return Decoder(shape)


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_documents_in_a_row_do_not_see_one_another(kv_heads: int) -> None:
    model = decoder(kv_heads)
    documents = [document(5, 6, 7, 8), document(9, 10, 11), document(12, 13, 14, 15, 16)]
    batch = pack([documents[:2], documents[2:]], row_tokens=8, target_share=1.0, filling=0)
    with torch.no_grad():
        packed = model(batch.token_ids, batch.positions, PackedAttention(batch.documents)).view(2, 8, -1)
        for row, start, each in ((0, 0, documents[0]), (0, 4, documents[1]), (1, 0, documents[2])):
            alone = pack([[each]], row_tokens=len(each), target_share=1.0, filling=0)
            expected = model(alone.token_ids, alone.positions, PackedAttention(alone.documents))
            torch.testing.assert_close(packed[row, start : start + len(each)], expected, rtol=1e-5, atol=1e-5)


def test_targets_are_the_successors_within_a_document() -> None:
    rows = [[document(5, 6, 7, 8, predicted_from=2), document(9, 10, 11, predicted_from=1)]]
    batch = pack(rows, row_tokens=8, target_share=1.0, filling=0)
    wanted = batch.targets != IGNORED
    assert batch.token_ids[batch.picks[wanted]].tolist() == [6, 7, 9, 10]
    assert batch.targets[wanted].tolist() == [7, 8, 10, 11]
    assert batch.positions.tolist() == [0, 1, 2, 3, 0, 1, 2, 0]


def test_surplus_targets_are_left_out() -> None:
    batch = pack([[document(*range(1, 9))]], row_tokens=8, target_share=0.5, filling=0)
    assert batch.targets.tolist() == [2, 3, 4, 5]


def test_rows_hold_every_document_that_fits_and_no_more_than_fits() -> None:
    documents = [document(*range(1, 1 + size)) for size in (3, 9, 5, 5, 2, 4, 30)]
    rows = list(fill_rows(documents, row_tokens=10, window=4))
    assert sorted(len(each) for row in rows for each in row) == [2, 3, 4, 5, 5, 9]
    assert all(sum(map(len, row)) <= 10 for row in rows)
