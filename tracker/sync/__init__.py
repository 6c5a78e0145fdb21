"""Uploading: pending events go to a destination until a receipt says that they are stored."""
