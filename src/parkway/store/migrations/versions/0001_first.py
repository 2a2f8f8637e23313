"""The first tables: revisions, keys, endpoints, conversations, messages, requests, feedback."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the tables."""
    _registry()
    _conversations()
    _requests()
    _feedback()


def downgrade() -> None:
    """Drops every table, and what is in it."""
    for table in ("feedback", "requests", "messages", "conversations", "endpoints", "keys", "revisions"):
        op.drop_table(table)


def _registry() -> None:
    op.create_table(
        "revisions",
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("topic", name="pk_revisions"),
    )
    op.create_table(
        "keys",
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("secret_hash", sa.LargeBinary, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("revoked_ms", sa.BigInteger),
        sa.PrimaryKeyConstraint("key_id", name="pk_keys"),
    )
    op.create_table(
        "endpoints",
        sa.Column("endpoint_id", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("upstream_model", sa.Text, nullable=False),
        sa.Column("weight", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("api_key_env", sa.Text),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("endpoint_id", name="pk_endpoints"),
        sa.CheckConstraint("weight >= 0", name=op.f("ck_endpoints_weight")),
        sa.CheckConstraint("state IN ('ready', 'draining', 'down')", name=op.f("ck_endpoints_state")),
        sa.CheckConstraint("source IN ('config', 'local', 'api')", name=op.f("ck_endpoints_source")),
    )


def _conversations() -> None:
    op.create_table(
        "conversations",
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("conversation_id", sa.Text, nullable=False),
        sa.Column("title", sa.Text),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("key_id", "conversation_id", name="pk_conversations"),
    )
    op.create_table(
        "messages",
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("conversation_id", sa.Text, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("request_id", sa.Text),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("key_id", "conversation_id", "position", name="pk_messages"),
        sa.ForeignKeyConstraint(
            ["key_id", "conversation_id"],
            ["conversations.key_id", "conversations.conversation_id"],
            name="fk_messages_conversations",
            ondelete="CASCADE",
        ),
    )


def _requests() -> None:
    op.create_table(
        "requests",
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("response_id", sa.Text),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("surface", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("endpoint_id", sa.Text),
        sa.Column("stream", sa.Boolean, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("prompt_tokens", sa.Integer),
        sa.Column("completion_tokens", sa.Integer),
        sa.Column("first_token_ms", sa.Float),
        sa.Column("total_ms", sa.Float, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("conversation_id", sa.Text),
        sa.Column("started_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("request_id", name="pk_requests"),
    )
    op.create_index("ix_requests_response_id", "requests", ["response_id"])
    op.create_index("ix_requests_started_ms", "requests", ["started_ms"])
    op.create_index("ix_requests_model_started_ms", "requests", ["model", "started_ms"])


def _feedback() -> None:
    op.create_table(
        "feedback",
        sa.Column("feedback_id", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("thumb", sa.Integer),
        sa.Column("score", sa.Float),
        sa.Column("comment", sa.Text),
        sa.Column("correction", sa.Text),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("feedback_id", name="pk_feedback"),
        sa.CheckConstraint("thumb IN (-1, 1)", name=op.f("ck_feedback_thumb")),
    )
    op.create_index("ix_feedback_request_id", "feedback", ["request_id"])
    op.create_index("ix_feedback_created_ms", "feedback", ["created_ms"])
