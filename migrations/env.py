"""How alembic reaches an outbox: over the tracker's own connection, or a file given by hand.

Developers: ``alembic -x outbox=FILE upgrade head`` from the project's root.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alembic import context

from tracker.outbox.schema import create, tables
from tracker.outbox.sqlite.engine import make_engine

if TYPE_CHECKING:
    from sqlalchemy import Connection


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=tables.metadata,
        render_as_batch=True,
        transactional_ddl=True,
    )
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        context.run_migrations()
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise
    connection.exec_driver_sql("COMMIT")


_given = context.config.attributes.get("connection")
if _given is not None:
    _migrate(_given)
else:
    _path = Path(str(context.get_x_argument(as_dictionary=True)["outbox"]))
    create.create_file(_path)
    with make_engine(_path, "full", writer=True).connect() as _connection:
        _migrate(_connection)
