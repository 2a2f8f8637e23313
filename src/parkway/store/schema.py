"""Every table of the store, in one `MetaData`; `migrations/` is how a database gets there.

Times are integer milliseconds since 1970 (`*_ms`), durations floating point milliseconds. Columns that hold JSON are
text. A change here needs a new file in `migrations/versions/` and a new `REVISION`; a test holds the two together.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

# The newest migration. Kept here so that a start on a current database need not import Alembic (0.1 to 0.3 s).
REVISION = "0006"

# Named constraints, because SQLite and PostgreSQL can only alter what has a name.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

revisions = Table(
    "revisions",
    metadata,
    Column("topic", Text, primary_key=True),
    Column("revision", BigInteger, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("secret_hash", LargeBinary, nullable=False),  # SHA-256 of the secret
    Column("created_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
    Column("owner", Text),  # the user whose it is
    Column("team", Text),
    Column("scopes", Text),  # JSON list; NULL: everything that policy allows
    Column("tier", Text),  # of service
    Column("expires_ms", BigInteger),
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("endpoint_id", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("upstream_model", Text, nullable=False),
    Column("weight", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("api_key_env", Text),
    Column("source", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    CheckConstraint("weight >= 0", name="weight"),
    CheckConstraint("state IN ('ready', 'draining', 'down', 'asleep')", name="state"),
    CheckConstraint("source IN ('config', 'local', 'api')", name="source"),
)

conversations = Table(
    "conversations",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("conversation_id", Text, primary_key=True),
    Column("title", Text),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
)

messages = Table(
    "messages",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("conversation_id", Text, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("request_id", Text),
    Column("role", Text, nullable=False),
    Column("content", Text, nullable=False),  # JSON of core.chat.Message
    Column("created_ms", BigInteger, nullable=False),
    ForeignKeyConstraint(
        ["key_id", "conversation_id"],
        ["conversations.key_id", "conversations.conversation_id"],
        ondelete="CASCADE",
    ),
)

requests = Table(
    "requests",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("response_id", Text),
    Column("key_id", Text, nullable=False),
    Column("surface", Text, nullable=False),  # one of feedback.record.Surface
    Column("model", Text, nullable=False),
    Column("endpoint_id", Text),
    Column("stream", Boolean, nullable=False),
    Column("status", Integer, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("prompt_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("first_token_ms", Float),
    Column("total_ms", Float, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("conversation_id", Text),
    Column("started_ms", BigInteger, nullable=False),
    Column("user", Text),
    Column("team", Text),
    Column("agent", Text),
    Column("task", Text),
    Column("cost_usd", Float),
    Column("cache", Text),  # which response cache answered: exact or semantic
    Column("queue_ms", Float),
    Column("trace_id", Text),
    Column("search", Text),  # JSON of feedback.record.SearchRecord, where documents were searched
    Index(None, "response_id"),
    Index(None, "started_ms"),
    Index(None, "model", "started_ms"),
    Index(None, "key_id", "started_ms"),
)

# No foreign key to requests: the request log is written later than the request, and may shed.
feedback = Table(
    "feedback",
    metadata,
    Column("feedback_id", Text, primary_key=True),
    Column("request_id", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("thumb", Integer),
    Column("score", Float),
    Column("comment", Text),
    Column("correction", Text),
    Column("created_ms", BigInteger, nullable=False),
    CheckConstraint("thumb IN (-1, 1)", name="thumb"),
    Index(None, "request_id"),
    Index(None, "created_ms"),
)

# What was spent of each budget in each of its periods.
budgets = Table(
    "budgets",
    metadata,
    Column("kind", Text, primary_key=True),  # key, user, team, model, agent or task
    Column("subject", Text, primary_key=True),
    Column("period", Text, primary_key=True),
    Column("period_start_ms", BigInteger, primary_key=True),
    Column("tokens", BigInteger, nullable=False),
    Column("micro_usd", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
)

# Each hash covers the entry and the hash before it.
audit = Table(
    "audit",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("entry", Text, nullable=False),  # JSON
    Column("hash", LargeBinary, nullable=False),
    Index(None, "at_ms"),
)

spans = Table(
    "spans",
    metadata,
    Column("trace_id", Text, primary_key=True),
    Column("span_id", Text, primary_key=True),
    Column("parent_id", Text),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("started_ns", BigInteger, nullable=False),
    Column("ended_ns", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("request_id", Text),
    Column("key_id", Text),
    Column("attributes", Text, nullable=False),  # JSON
    Index(None, "started_ns"),
    Index(None, "request_id"),
)

# Answers of `/v1/responses` that are kept for `previous_response_id`.
responses = Table(
    "responses",
    metadata,
    Column("response_id", Text, primary_key=True),
    Column("key_id", Text, nullable=False),
    Column("previous_id", Text),
    Column("model", Text, nullable=False),
    Column("turns", Text, nullable=False),  # JSON list of core.chat.Message: what this request added, and its answer
    Column("body", Text, nullable=False),  # JSON: the response as its client got it
    Column("created_ms", BigInteger, nullable=False),
    Index(None, "key_id", "created_ms"),
)

knowledge_collections = Table(
    "knowledge_collections",
    metadata,
    Column("collection", Text, primary_key=True),
    Column("origin", Text, nullable=False),
    Column("settings", Text, nullable=False),  # JSON of retrieval.config.CollectionConfig
    Column("removing", Boolean, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    CheckConstraint("origin IN ('config', 'api')", name="origin"),
)

# Who works on a document holds its lease; `change` counts what happened to it, so that nobody finishes an older one.
knowledge_documents = Table(
    "knowledge_documents",
    metadata,
    Column("document_id", Text, primary_key=True),
    Column("collection", Text, nullable=False),
    Column("source", Text, nullable=False),
    # In the order of its characters, so that what is below a folder is a range.
    Column("uri", Text().with_variant(Text(collation="C"), "postgresql"), nullable=False),
    Column("slot", Integer, nullable=False),  # of the hash of the id: which partition has it
    Column("title", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("access", Text),  # JSON list; NULL: as the collection says
    Column("metadata", Text, nullable=False),  # JSON object
    Column("fingerprint", Text, nullable=False),  # of what the source said
    Column("recipe", Text, nullable=False),  # how it was read, cut and embedded
    Column("content_hash", Text, nullable=False),
    Column("version", Text, nullable=False),  # the one whose passages the index has; empty: none
    Column("passages", Integer, nullable=False),
    Column("characters", Integer),  # of its text; NULL: not known
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("change", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("due_ms", BigInteger, nullable=False),
    Column("lease_ms", BigInteger, nullable=False),  # until then somebody works on it
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    CheckConstraint("state IN ('waiting', 'indexed', 'set_aside', 'removing')", name="state"),
    Index(None, "collection", "state", "due_ms"),
    Index(None, "collection", "source", "uri"),
)
