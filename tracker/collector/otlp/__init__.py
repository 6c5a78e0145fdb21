"""OTLP over HTTP: spans and log records from programs that have no outbox.

Only `forms` and `routes` do without ``opentelemetry-proto``, which the extra ``[otel]`` installs.
"""
