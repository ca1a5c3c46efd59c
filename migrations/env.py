"""How Alembic runs here: all pending migrations in one transaction, on SQLite by copying tables.

`pilotwave_server.migrate` hands over a connection. Started from the `alembic` command there is
none; then the database is PILOTWAVE_DATABASE_URL.
"""

from __future__ import annotations

import os
from typing import Any, Literal

from alembic import context
from alembic.operations import MigrationScript
from sqlalchemy import JSON, Connection
from sqlalchemy.types import TypeEngine

from pilotwave_server import migrate, schema
from pilotwave_server.db import UtcDateTime


def name_by_deed(context_: Any, revision: Any, directives: list[MigrationScript]) -> None:
    """A revision is called by what it does: `add_rollouts` reads better in an error than a hash."""
    for script in directives:
        script.rev_id = "_".join((script.message or "unnamed").lower().split())


def render_item(kind: str, item: Any, autogen_context: Any) -> str | Literal[False]:
    # A migration is history and must not change with our classes.
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, JSON):
        autogen_context.imports.add("from sqlalchemy.dialects import postgresql")
        jsonb = "postgresql.JSONB(none_as_null=True)"
        return f'sa.JSON(none_as_null=True).with_variant({jsonb}, "postgresql")'
    return False


def same_type(
    context_: Any,
    inspected_column: Any,
    metadata_column: Any,
    inspected_type: TypeEngine[Any],
    metadata_type: TypeEngine[Any],
) -> bool | None:
    """SQLite keeps every time as text of one form, so there is nothing to compare."""
    if isinstance(metadata_type, UtcDateTime) and context_.dialect.name == "sqlite":
        return False
    return None


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=schema.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        render_item=render_item,
        compare_type=same_type,
        process_revision_directives=name_by_deed,
        transaction_per_migration=False,
        on_version_apply=migrate.note_oldest,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
elif os.environ.get("PILOTWAVE_DATABASE_URL"):
    with migrate.connection(os.environ["PILOTWAVE_DATABASE_URL"]) as opened:
        run(opened)
else:
    raise SystemExit("set PILOTWAVE_DATABASE_URL to the database that alembic should work on")
