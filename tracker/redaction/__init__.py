"""Masks secrets and personal data in an event's data, before anything reaches the disk.

`rules` says what a rule is, `secrets` and `personal` hold the rules; `names` knows the names that
announce a secret, and `assigned` finds them in texts; `own_keys` knows the SDK's own keys; `uncut`
has texts cut after they are masked; `capture` puts sizes in the place of content. `redactor`
applies all of it to an event's data, and `lines` to what the SDK says of itself. No I/O here.

Only `data` is masked: a session's, agent's or user's id is what finds an event again and is left
alone, so it must not be a secret or an e-mail address.
"""
