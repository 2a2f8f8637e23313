"""Collections of knowledge and their documents."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TEXTS = ("title", "media_type", "metadata", "fingerprint", "recipe", "content_hash", "version", "state", "reason")


def upgrade() -> None:
    """Adds tables; what is there stays."""
    op.create_table(
        "knowledge_collections",
        sa.Column("collection", sa.Text),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("removing", sa.Boolean, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("collection", name=op.f("pk_knowledge_collections")),
        sa.CheckConstraint("origin IN ('config', 'api')", name=op.f("ck_knowledge_collections_origin")),
    )
    op.create_table(
        "knowledge_documents",
        sa.Column("document_id", sa.Text),
        sa.Column("collection", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("uri", sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=False),
        sa.Column("slot", sa.Integer, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in _TEXTS),
        sa.Column("access", sa.Text),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("passages", "change", "attempt")),
        *(sa.Column(f"{name}_ms", sa.BigInteger, nullable=False) for name in ("due", "lease", "created", "updated")),
        sa.PrimaryKeyConstraint("document_id", name=op.f("pk_knowledge_documents")),
        sa.CheckConstraint(
            "state IN ('waiting', 'indexed', 'set_aside', 'removing')", name=op.f("ck_knowledge_documents_state")
        ),
    )
    op.create_index(
        op.f("ix_knowledge_documents_collection_state_due_ms"), "knowledge_documents", ["collection", "state", "due_ms"]
    )
    op.create_index(
        op.f("ix_knowledge_documents_collection_source_uri"),
        "knowledge_documents",
        ["collection", "source", "uri"],
    )


def downgrade() -> None:
    """Takes it all back, and what was kept in it."""
    op.drop_table("knowledge_documents")
    op.drop_table("knowledge_collections")
