"""A tracker that knows one more revision of the outbox's schema than the newest there is."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from typing import TYPE_CHECKING

from sqlalchemy import Column, MetaData, Text

from tracker.outbox.schema import create, tables

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

_SCRIPT = '''
"""A revision that does not exist yet."""
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "9999", "{head}", None, None


def upgrade():
    with op.batch_alter_table("account") as batch:
        batch.add_column(sa.Column("note", sa.Text))
    op.execute("UPDATE account SET note = 'carried'")
'''


class NextVersion:
    """Turns this tracker into one that has a further migration, to the revision ``9999``.

    It replaces what the package knows about its own schema, which nothing can be told in another
    way: no user chooses a revision.

    Attributes:
        script: The migration.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._scripts = folder / "scripts"
        with create.scripts_folder() as scripts:
            shutil.copytree(scripts, self._scripts)
        self.script = self._scripts / "versions" / "9999_next.py"
        self.script.write_text(_SCRIPT.format(head=tables.HEAD))

    def install(self) -> None:
        """Be that tracker until the test ends."""
        metadata = MetaData()
        for table in tables.metadata.sorted_tables:
            table.to_metadata(metadata)
        metadata.tables["account"].append_column(Column("note", Text))
        self._monkeypatch.setattr(tables, "HEAD", "9999")
        self._monkeypatch.setattr(tables, "metadata", metadata)
        self._monkeypatch.setattr(create, "scripts_folder", lambda: nullcontext(self._scripts))
