"""Masks secrets and personal data in an event's data, before anything reaches the disk.

`rules` says what a rule is, `secrets` and `personal` hold the rules, `capture` puts sizes in the
place of content, and `redactor` applies all of it to an event's data. No I/O here.

Only `data` is masked: a session's, agent's or user's id is what finds an event again and is left
alone, so it must not be a secret or an e-mail address.
"""
