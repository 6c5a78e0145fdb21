"""The tables of an outbox: how they are created, migrated and recognised."""
