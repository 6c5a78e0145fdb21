"""`Witness`: the collector's key and clock, which confirm the heads of outboxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker import ownership
from tracker.collector.engine import file_of, parse
from tracker.errors import ConfigurationError
from tracker.evidence import heads, keys, note
from tracker.evidence.verifier import Key, NotProvenError, parse_key

if TYPE_CHECKING:
    from pathlib import Path

    from tracker.evidence.heads import Claim
    from tracker.evidence.keys import Signer

DEFAULT_NAME = "tracker-collector"


class Witness:
    """Somebody other than the device, who signs that a head was there at a time.

    Args:
        name: Its name, one word without a plus sign.
        signer: Its key.

    Raises:
        ConfigurationError: if no key can have this name.
    """

    def __init__(self, name: str, signer: Signer) -> None:
        self.signer = signer
        self.key: Key = note.witness_key(name, signer.public_key)
        try:
            parse_key(str(self.key))
        except NotProvenError:
            raise ConfigurationError(
                f"the witness's name {name!r} is not one word without a plus sign"
            ) from None

    def cosigned(self, claimed: Claim, time_ms: int) -> str:
        """Return the note of a head with this witness's signature.

        Args:
            claimed: The head.
            time_ms: The collector's clock, Unix milliseconds.
        """
        return heads.cosigned(claimed, self.key.name, self.signer, time_ms // 1000)


def witness_of(database: str | Path, key_file: Path | None, name: str) -> Witness | None:
    """Return the witness of a collector; its key is made on first use.

    Args:
        database: The collector's database.
        key_file: The file of the key; None takes the one beside an SQLite file.
        name: The witness's name.

    Returns:
        The witness, or None if the database is not a file and none was given.

    Raises:
        ConfigurationError: if the name, the key or the database is unusable, or the library that
            signs is missing.
    """
    if key_file is None:
        url = parse(database)
        if url.get_backend_name() != "sqlite":
            return None
        file = file_of(url)
        ownership.create_folder(file.parent)
        key_file = file.with_name(f"{file.name}.witness-key")
    return Witness(name, keys.load_or_create(key_file))
