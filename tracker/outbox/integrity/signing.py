"""The key that signs an outbox's checkpoints: from the configuration, or in a file beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker import log
from tracker.errors import ConfigurationError
from tracker.evidence import keys
from tracker.outbox.files import paths

if TYPE_CHECKING:
    from pathlib import Path

    from tracker.evidence.keys import Signer
    from tracker.once import Once


def signer(path: Path, given: str | None, logged: Once) -> Signer | None:
    """Return the signer for the outbox at `path`; None if there is none.

    The file is made on first use, if the extra ``[evidence]`` is installed. A copy of the outbox
    alone does not have it, and so has no identity. A file that holds no key signs nothing and is
    left as it is: somebody has to look at it.

    Args:
        path: The outbox.
        given: The private key of the configuration, PKCS#8 in PEM, or None.
        logged: What was said already: why nothing is signed is said once.
    """
    if not keys.can_sign():
        return None
    try:
        if given:
            return keys.from_text(given)
        file = paths.signing_key(path)
        if file.is_symlink():
            raise ConfigurationError(f"{file} is a link; give a key elsewhere as signing_key")
        return keys.load_or_create(file)
    except (ConfigurationError, OSError) as error:
        if logged.is_new(str(error)):
            log.error("checkpoints of the outbox %s are not signed: %s", path, error)
    return None
