"""A device and a collector that no network joins: two folders, and files carried between them."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner, Result

from tests.support.cli import call
from tests.support.settings import quick
from tests.support.uploads import fill
from tracker.collector.keys import Keys
from tracker.collector.main import cli as collector_cli
from tracker.collector.store import Store
from tracker.outbox.outbox import Outbox
from tracker.outbox.store import ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

    from tracker.collector.integrity import OutboxReport
    from tracker.config import APIConfig
    from tracker.outbox.store.ledger import Account

NO_SERVER = "http://127.0.0.1:9"


class Shore:
    """The collector's machine.

    Args:
        folder: Its folder.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.database: str | Path = folder / "collector.sqlite3"

    @contextmanager
    def store(self) -> Iterator[Store]:
        store = Store(self.database)
        try:
            yield store
        finally:
            store.close()

    def new_key(self, client_id: str | None = "test-client") -> str:
        with self.store() as store:
            return Keys(store).create(client_id)[0]

    def revoke(self, key_id: int) -> None:
        with self.store() as store:
            assert Keys(store).revoke(key_id)

    def unpack(self, bundle: Path, receipts: Path, *arguments: str) -> Result:
        return CliRunner().invoke(
            collector_cli,
            ["unpack", str(bundle), "--receipts", str(receipts),
             "--database", str(self.database), *arguments],
        )  # fmt: skip

    def unpacked(self, bundle: Path, receipts: Path) -> dict[str, Any]:
        """Unpack a bundle, which must work, and return what became of it."""
        done = self.unpack(bundle, receipts, "--force", "--json")
        assert done.exit_code == 0, done.output
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def events(self, client_id: str = "test-client") -> list[dict[str, Any]]:
        """Return what is stored of a client, in the order of receipt."""
        with self.store() as store:
            rows, following = store.events_after(client_id, 0, 1_000_000, 1 << 40)
        assert following is None
        return [{**row, "data": json.loads(row["data"])} for row in rows]

    def ids(self) -> list[str]:
        return [event["event_id"] for event in self.events()]

    def report(self, outbox_id: str, client_id: str = "test-client") -> OutboxReport:
        with self.store() as store:
            return store.outbox_report(client_id, outbox_id)


@dataclass
class Device:
    """The outbox's machine.

    Attributes:
        folder: Its folder.
        api_key: Its key.
        patch: Sets the environment of its commands.
        settings: Its settings, apart from those that never change here.
    """

    folder: Path
    api_key: str
    patch: pytest.MonkeyPatch
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)

    @property
    def config(self) -> APIConfig:
        return quick(
            self.folder, **{"base_url": NO_SERVER, "api_key": self.api_key, **self.settings}
        )

    @property
    def outbox_path(self) -> Path:
        return self.config.outbox_path

    def log(self, count: int, size: int = 20) -> list[str]:
        """Log messages, and return their ids."""
        return fill(self.config, [f"{number} {'x' * size}" for number in range(count)])

    def call(self, *arguments: object) -> Result:
        self.patch.setenv("SDK_API_KEY", self.api_key)
        return call("--outbox", self.outbox_path, *arguments)

    def called(self, *arguments: object) -> Any:
        """Run a command, which must work, and return the JSON that it prints."""
        done = self.call(*arguments, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def pack(self, name: str, *arguments: object) -> Path:
        """Pack what is pending into one file, and return it."""
        path = self.folder / name
        self.called("pack", "--output", path, "--force", *arguments)
        return path

    def settle(self, receipts: Path) -> tuple[int, int]:
        """Use a file of receipts, which must work; return how many were delivered, and buried."""
        found = self.called("receipts", receipts)
        return found["delivered"], found["dead"]

    @contextmanager
    def outbox(self) -> Iterator[Outbox]:
        outbox = Outbox(self.config)
        try:
            yield outbox
        finally:
            outbox.close()

    def account(self) -> Account:
        with self.outbox() as outbox, outbox.reading() as connection:
            return ledger.read(connection)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.outbox() as outbox, outbox.reading() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(query)]

    def delivered(self) -> set[str]:
        """Return the ids of the events that are marked as delivered."""
        return {event_id for (event_id,) in self.rows("SELECT event_id FROM delivered")}

    def outbox_id(self) -> str:
        ((outbox_id,),) = self.rows("SELECT outbox_id FROM identity")
        return str(outbox_id)
