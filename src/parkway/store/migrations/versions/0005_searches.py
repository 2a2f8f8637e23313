"""What requests found in documents."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds a column to the request log."""
    op.add_column("requests", sa.Column("search", sa.Text))


def downgrade() -> None:
    """Takes it back."""
    with op.batch_alter_table("requests") as table:
        table.drop_column("search")
