"""Masks secrets and personal data in an event's data, before anything reaches the disk.

`rules` defines rules, and `secrets` and `personal` contain them. `names` recognizes names of
secrets, and `assigned` finds such names in texts. `own_keys` finds the package's own keys. `uncut`
truncates texts after they are masked. `capture` replaces content by sizes. `redactor` applies all
of this to an event's data, and `lines` to log lines and the status. There is no I/O here.

Only `data` is masked: session, agent and user ids are needed to find events and are not changed,
so they must not be secrets or e-mail addresses.
"""
