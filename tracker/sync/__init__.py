"""Uploading: pending events are sent until a receipt says that they are stored."""
