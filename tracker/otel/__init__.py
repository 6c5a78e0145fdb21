"""OpenTelemetry in and out: its spans and log records become events, and events become OTLP."""
