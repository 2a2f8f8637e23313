"""How long the text of a document is."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds a column to the documents."""
    op.add_column("knowledge_documents", sa.Column("characters", sa.Integer))


def downgrade() -> None:
    """Takes it back."""
    with op.batch_alter_table("knowledge_documents") as table:
        table.drop_column("characters")
