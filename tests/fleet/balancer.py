"""HAProxy before the replicas, as the page about deployment sets it up."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from typing import TYPE_CHECKING

import trustme

from tests.fleet.page import REPLICAS, block, placed
from tests.fleet.programs import Program, find, listens, user, wait_for
from tests.support.collector import free_port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Balancer:
    """HAProxy on a port of its own, with a certificate of its own CA.

    Attributes:
        url: Where devices send.
        ca: The file of the CA's certificate.
        ssl: A context that trusts it.
    """

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        self.host, self.port = "127.0.0.1", free_port()
        self.url = f"https://{self.host}:{self.port}"
        authority = trustme.CA()
        pem, self.ca = folder / "collector.pem", folder / "ca.pem"
        authority.issue_cert(self.host).private_key_and_cert_chain_pem.write_to_path(str(pem))
        authority.cert_pem.write_to_path(str(self.ca))
        self.ssl = ssl.create_default_context(cafile=str(self.ca))
        self.file = folder / "haproxy.cfg"
        replicas = zip(REPLICAS, (f"127.0.0.1:{port}" for port in ports), strict=True)
        own = {
            ":443": f"{self.host}:{self.port}",
            "/etc/haproxy/collector.pem": str(pem),
            "maxconn 50000": "maxconn 2000",  # more descriptors than the tests may have
        }
        self.file.write_text(
            placed(
                block("haproxy", "# /etc/haproxy/haproxy.cfg on the balancer"),
                {**own, **dict(replicas)},
            )
        )
        if (name := user()) is not None:
            shutil.chown(pem, name)
        self._command = [str(find("haproxy")), "-f", str(self.file)]
        self.program = Program("haproxy", [*self._command, "-db"], folder / "haproxy.log")

    def start(self) -> None:
        """Start it, and return when it listens."""
        self.program.start()
        wait_for(lambda: listens(self.port), "HAProxy listens", 30, self.program)

    def check(self) -> str:
        """Return what HAProxy says against its configuration."""
        done = subprocess.run([*self._command, "-c"], check=False, capture_output=True, text=True)
        return "" if done.returncode == 0 else done.stdout + done.stderr
