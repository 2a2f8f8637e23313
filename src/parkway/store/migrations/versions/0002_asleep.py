"""Endpoints may be asleep: models that are loaded when they are asked for."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Allows the state `asleep`."""
    _allow("'ready', 'draining', 'down', 'asleep'")


def downgrade() -> None:
    """Takes it back; what sleeps counts as down."""
    op.execute("UPDATE endpoints SET state = 'down' WHERE state = 'asleep'")
    _allow("'ready', 'draining', 'down'")


def _allow(states: str) -> None:
    with op.batch_alter_table("endpoints") as table:
        table.drop_constraint(op.f("ck_endpoints_state"), type_="check")
        table.create_check_constraint(op.f("ck_endpoints_state"), f"state IN ({states})")
