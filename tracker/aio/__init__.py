"""The trackers for `asyncio`: the same calls, awaited.

There is no second copy of them. A logging call runs whole in a thread, in the context of the task
that made it, and what it would have stored is handed on to a second thread, which commits all that
came meanwhile in one transaction and then wakes their tasks. So a thousand calls that wait for a
slow disk take two threads, not a thousand; and a call's validation, redaction and look-ups never
run on the event loop. Measured against a pool of threads that each commit their own call: see
``tests/benchmarks/loop_lag.py``.
"""
