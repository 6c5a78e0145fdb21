"""Pages for people in a browser, the same for one outbox and for a collector's clients.

What they read is a `Source`; what is around them is a `Site`. The extra ``[dashboard]`` has what
they need.
"""
