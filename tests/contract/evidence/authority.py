"""A time stamp authority of this machine's own, by openssl."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

OPENSSL = shutil.which("openssl")
_CONFIGURATION = """
[req]
distinguished_name = name
prompt = no
[name]
CN = Time
[authority]
basicConstraints = critical,CA:TRUE
[stamps]
extendedKeyUsage = critical,timeStamping
[tsa]
default_tsa = here
[here]
serial = serial
crypto_device = builtin
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
ess_cert_id_chain = no
"""


class Authority:
    """A root in ``root.pem``, and a certificate under it that stamps."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.root = folder / "root.pem"
        (folder / "tsa.cnf").write_text(_CONFIGURATION)
        (folder / "serial").write_text("01\n")
        curve = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -config tsa.cnf"
        self._run(f"req -x509 {curve} -extensions authority -keyout ca.key -out root.pem -days 30")
        self._run(f"req {curve} -keyout tsa.key -out tsa.csr")
        self._run(
            "x509 -req -in tsa.csr -CA root.pem -CAkey ca.key -set_serial 7 -out tsa.pem -days 30 "
            "-extfile tsa.cnf -extensions stamps"
        )

    def reply(self, request: bytes) -> bytes:
        (self._folder / "request.tsq").write_bytes(request)
        self._run(
            "ts -reply -config tsa.cnf -queryfile request.tsq -signer tsa.pem -inkey tsa.key "
            "-out reply.tsr"
        )
        return (self._folder / "reply.tsr").read_bytes()

    def _run(self, arguments: str) -> None:
        assert OPENSSL is not None
        subprocess.run(
            [OPENSSL, *arguments.split()], check=True, capture_output=True, cwd=self._folder
        )
