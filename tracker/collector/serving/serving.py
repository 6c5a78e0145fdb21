"""`Serving`: what `tracker-collector serve` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracker.collector.engine import parse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tracker.collector.replication import Durability
    from tracker.collector.serving.log_lines import Voice
    from tracker.collector.settings import Settings


SHUTDOWN_SECONDS = 10
"""How long requests under way may take when the process ends."""


@dataclass(frozen=True)
class Serving:
    """The options of ``tracker-collector serve``.

    Attributes:
        database: The database.
        direct: The same database for LISTEN; None for `database`.
        durability: What a receipt guarantees; None for what the server is configured for.
        key_file: The witness's key; None for the default.
        witness_name: Its name.
        tsa: Address of a time stamp authority, or None.
        settings: The limits.
        ui_hosts: Hosts of the pages; None leaves the pages out.
        drain_seconds: How long to go on after SIGTERM.
        voice: Says how it starts.
        migrates: Whether it adds to the database what is missing.
    """

    database: str
    direct: str | None
    durability: Durability | None
    key_file: Path | None
    witness_name: str
    tsa: str | None
    settings: Settings
    ui_hosts: Sequence[str] | None
    drain_seconds: float
    voice: Voice
    migrates: bool = True

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is an SQLite file.

        Raises:
            ConfigurationError: if it is not valid.
        """
        return parse(self.database).get_backend_name() == "sqlite"
