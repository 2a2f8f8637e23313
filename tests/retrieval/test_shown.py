"""What documents are called to whoever asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from parkway.retrieval.config import CollectionConfig
from parkway.retrieval.shown import Shown

SHOWN = Shown.of(CollectionConfig.model_validate(["/srv/docs", "/srv/docs/deep/one", "/srv/a.md", "/srv/a b"]))


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/srv/docs/keys.md", "docs/keys.md"),
        ("/srv/docs/in/a b.md", "docs/in/a b.md"),
        ("/srv/docs/deep/one/x.md", "one/x.md"),
        ("/srv/a.md", "a.md"),
        ("/srv/a b/c%20d.md", "a b/c%20d.md"),
        ("/srv/docs/new\nline.md", "docs/new%0Aline.md"),
        ("/srv/docs/日本.txt", "docs/日本.txt"),
        ("/srv/docsier/x.md", "x.md"),
        ("/home/ann/secret/x.md", "x.md"),
    ],
)
def test_files_are_told_from_their_folder_on(path: str, told: str) -> None:
    assert SHOWN(Path(path).as_uri()) == told


def test_names_that_are_no_text_stay_as_they_are_in_a_uri() -> None:
    assert SHOWN("file:///srv/docs/%FF.md") == "docs/%FF.md"
    assert SHOWN("file:///home/ann/%FF.md") == "%FF.md"


def test_other_addresses_are_told_as_they_are() -> None:
    for uri in ("https://example.org/srv/docs/a", "s3://bucket/a", "reports/2026.pdf", "articles/1"):
        assert SHOWN(uri) == uri
