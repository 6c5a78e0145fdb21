"""`is_loopback`: which hosts are this machine itself."""

from __future__ import annotations


def is_loopback(host: str) -> bool:
    """Return True if `host` is this machine's loopback interface."""
    if host in ("localhost", "127.0.0.1"):
        return True
    import ipaddress  # seldom needed, and slow to load

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
