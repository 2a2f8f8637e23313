"""Who a key belongs to, what requests cost, budgets, the audit log, traces, and answers that are kept."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_OF_KEYS = (
    sa.Column("owner", sa.Text),
    sa.Column("team", sa.Text),
    sa.Column("scopes", sa.Text),
    sa.Column("tier", sa.Text),
    sa.Column("expires_ms", sa.BigInteger),
)
_OF_REQUESTS = (
    sa.Column("user", sa.Text),
    sa.Column("team", sa.Text),
    sa.Column("agent", sa.Text),
    sa.Column("task", sa.Text),
    sa.Column("cost_usd", sa.Float),
    sa.Column("cache", sa.Text),
    sa.Column("queue_ms", sa.Float),
    sa.Column("trace_id", sa.Text),
)


def upgrade() -> None:
    """Adds columns and tables; what is there stays."""
    for column in _OF_KEYS:
        op.add_column("keys", column)
    for column in _OF_REQUESTS:
        op.add_column("requests", column)
    op.create_index(op.f("ix_requests_key_id_started_ms"), "requests", ["key_id", "started_ms"])
    op.create_table(
        "budgets",
        sa.Column("kind", sa.Text),
        sa.Column("subject", sa.Text),
        sa.Column("period", sa.Text),
        sa.Column("period_start_ms", sa.BigInteger),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("micro_usd", sa.BigInteger, nullable=False),
        sa.Column("updated_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("kind", "subject", "period", "period_start_ms", name=op.f("pk_budgets")),
    )
    op.create_table(
        "audit",
        sa.Column("sequence", sa.BigInteger, autoincrement=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("entry", sa.Text, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_audit_at_ms"), "audit", ["at_ms"])
    op.create_table(
        "spans",
        sa.Column("trace_id", sa.Text),
        sa.Column("span_id", sa.Text),
        sa.Column("parent_id", sa.Text),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("started_ns", sa.BigInteger, nullable=False),
        sa.Column("ended_ns", sa.BigInteger, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text),
        sa.Column("key_id", sa.Text),
        sa.Column("attributes", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("trace_id", "span_id", name=op.f("pk_spans")),
    )
    op.create_index(op.f("ix_spans_started_ns"), "spans", ["started_ns"])
    op.create_index(op.f("ix_spans_request_id"), "spans", ["request_id"])
    op.create_table(
        "responses",
        sa.Column("response_id", sa.Text),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("previous_id", sa.Text),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("turns", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("response_id", name=op.f("pk_responses")),
    )
    op.create_index(op.f("ix_responses_key_id_created_ms"), "responses", ["key_id", "created_ms"])


def downgrade() -> None:
    """Takes it all back, and what was kept in it."""
    for table in ("responses", "spans", "audit", "budgets"):
        op.drop_table(table)
    op.drop_index(op.f("ix_requests_key_id_started_ms"), "requests")
    with op.batch_alter_table("requests") as table:
        for column in _OF_REQUESTS:
            table.drop_column(column.name)
    with op.batch_alter_table("keys") as table:
        for column in _OF_KEYS:
            table.drop_column(column.name)
