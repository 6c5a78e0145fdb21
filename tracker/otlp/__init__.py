"""Events as OpenTelemetry's spans and log records, and the requests that send them.

Importing its modules needs the extra ``[otel]``, or at least the package ``opentelemetry-proto``.
"""
