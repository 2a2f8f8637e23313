"""Rows of databases as documents."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from sqlalchemy import text

from parkway.core.errors import ConfigurationError, Unreadable
from parkway.retrieval.config import QueryConfig
from parkway.retrieval.ingest.query import Query
from parkway.retrieval.ingest.source import Entry, Missing, SourceUnavailable
from parkway.store.sql import Database


@pytest.fixture
def articles(database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Database:
    with database.begin() as connection:
        connection.execute(
            text("CREATE TABLE articles (id INTEGER PRIMARY KEY, body TEXT, headline TEXT, area TEXT, whom TEXT)")
        )
        for number in range(450):
            connection.execute(
                text("INSERT INTO articles VALUES (:n, :body, :headline, 'news', :whom)"),
                {"n": number, "body": f"body {number}", "headline": f"Article {number}", "whom": "team:a, user:b"},
            )
    monkeypatch.setenv("ARTICLES", database_url)
    return database


def query(sql: str, **more: object) -> Query:
    return Query(QueryConfig(name="articles", sql=sql, url_env="ARTICLES", **more))  # pyright: ignore


def entries(source: Query) -> dict[str, Entry]:
    return {one.uri: one for one in source.entries() if isinstance(one, Entry)}


def test_rows_are_documents(articles: Database) -> None:
    source = query("SELECT id, body AS text, headline AS title, area, whom AS access FROM articles;")
    found = entries(source)
    assert len(found) == 450
    one = found["sql:articles/7"]
    assert (one.title, one.access, dict(one.metadata)) == ("Article 7", ("team:a", "user:b"), {"area": "news"})
    content = source.read("sql:articles/7", 1000)
    assert (content.data, content.title, content.media_type) == (b"body 7", "Article 7", "text/plain")
    with pytest.raises(Missing):
        source.read("sql:articles/9999", 1000)
    with pytest.raises(Unreadable, match="larger than 3 bytes"):
        source.read("sql:articles/7", 3)
    with articles.begin() as connection:
        connection.execute(text("UPDATE articles SET area = 'old' WHERE id = 7"))
    again = entries(source)
    assert [uri for uri in found if again[uri].fingerprint != found[uri].fingerprint] == ["sql:articles/7"]


def test_ids_may_be_text_with_anything_in_it(articles: Database) -> None:
    source = query(
        "SELECT 'it''s/' || headline AS id, body AS text FROM articles WHERE headline LIKE '%: 3%' OR id < 2"
    )
    assert set(entries(source)) == {"sql:articles/it%27s%2FArticle%200", "sql:articles/it%27s%2FArticle%201"}
    assert source.read("sql:articles/it%27s%2FArticle%201", 100).data == b"body 1"


def test_a_row_that_names_nobody_is_for_nobody(articles: Database) -> None:
    [one] = entries(query("SELECT id, body AS text, NULL AS access FROM articles WHERE id = 1")).values()
    assert one.access == ()


def test_nothing_can_be_written(articles: Database) -> None:
    if articles.dialect == "sqlite":
        source = query("WITH x AS (SELECT 1) INSERT INTO articles (id) SELECT 99999 RETURNING id, 'x' AS text")
    else:
        with articles.begin() as connection:
            connection.execute(text("CREATE SEQUENCE numbers"))
        source = query("SELECT nextval('numbers') AS id, 'x' AS text")
    with pytest.raises(SourceUnavailable, match=r"read-?only"):
        list(source.entries())
    with articles.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM articles")).scalar_one() == 450


def test_what_is_wrong_is_said(articles: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceUnavailable, match="has no column text"):
        list(query("SELECT id FROM articles").entries())
    with pytest.raises(SourceUnavailable, match="the query articles failed"):
        list(query("SELECT id, text FROM nowhere").entries())
    with pytest.raises(ValidationError, match="begins with SELECT or WITH"):
        query("DROP TABLE articles")
    monkeypatch.setenv("ARTICLES", "nonsense://user:secret@host")
    with pytest.raises(ConfigurationError, match="ARTICLES is not the URL of a database") as caught:
        query("SELECT 1")
    assert "secret" not in str(caught.value)
    monkeypatch.delenv("ARTICLES")
    with pytest.raises(ConfigurationError, match="ARTICLES is not set"):
        query("SELECT 1")
