"""What Alembic runs around the steps: they use the connection, and the transaction, of `upgrade`."""

from alembic import context

from parkway.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite cannot alter a column: Alembic copies the table
)
context.run_migrations()
