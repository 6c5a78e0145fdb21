"""Reading what the outbox holds: plain functions of a connection, no state, no writing."""
