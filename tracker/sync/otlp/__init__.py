"""OTLP over HTTP as a destination: spans as they came in, and spans made of events.

Importing it needs the extra ``[otel]``, or at least the package ``opentelemetry-proto``.
"""

from tracker.sync.otlp.destination import OTLPDestination

__all__ = ["OTLPDestination"]
