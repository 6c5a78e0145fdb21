"""What three texts ask of records, in our words, and which records of an outbox speak to it.

Nothing here says that a text is met: only which events are there, and where.
"""

from __future__ import annotations

from dataclasses import dataclass

EU_AI_ACT = "eu-ai-act"
ISO_42001 = "iso-42001"
SOC2 = "soc2"


@dataclass(frozen=True)
class Line:
    """One thing that a text asks for.

    Attributes:
        provision: The article, control or criterion.
        asks: What it asks, in our words.
        kinds: Which of `records.KINDS` speak to it.
    """

    provision: str
    asks: str
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Framework:
    """One text.

    Attributes:
        title: Its name.
        note: What a reader has to know about the table.
        lines: What it asks for.
    """

    title: str
    note: str
    lines: tuple[Line, ...]


_BIOMETRIC = "Article 12(3), for remote biometric identification only"
_BESIDE = "Beside the text"

FRAMEWORKS = {
    EU_AI_ACT: Framework(
        "EU AI Act, Article 12: record-keeping",
        "Article 12 does not ask for tamper evidence by name. Article 12(3) concerns remote "
        "biometric identification alone; its lines are given for every system.",
        (
            Line(
                "Article 12(1)",
                "Events are recorded automatically over the lifetime of the system",
                ("events", "removed", "discarded"),
            ),
            Line(
                "Article 12(2)",
                "Events that matter for risks (Article 79(1))",
                ("failures", "security"),
            ),
            Line(
                "Article 12(2)",
                "Events that matter for substantial modifications",
                ("registered", "versions", "releases"),
            ),
            Line(
                "Article 12(2)",
                "Events that matter for post-market monitoring (Article 72)",
                ("feedback", "ended"),
            ),
            Line(
                "Article 12(2)",
                "Events that matter for monitoring the operation (Article 26(5))",
                ("status", "heartbeats", "messages", "tools", "models"),
            ),
            Line(_BIOMETRIC, "The period of each use", ("began", "ended", "open")),
            Line(_BIOMETRIC, "The reference database", ("reference",)),
            Line(
                _BIOMETRIC,
                "The input that led to a match; here, all inputs and outputs",
                ("messages", "tools", "models"),
            ),
            Line(
                _BIOMETRIC,
                "The persons who verified the results (Article 14(5))",
                ("actors", "acknowledged"),
            ),
            Line(
                "Article 19 for providers, Article 26(6) for deployers",
                "Logs are kept for at least six months, unless other law says otherwise",
                ("six_months", "retention"),
            ),
            Line(
                _BESIDE, "Heads over the record, and changes of their key", ("checkpoints", "keys")
            ),
            Line(_BESIDE, "What was erased", ("erasures", "erased")),
        ),
    ),
    ISO_42001: Framework(
        "ISO/IEC 42001, control A.6.2.8: event logs",
        "The control leaves it to the organization to decide when event logs are kept, at least "
        "while the system is in use. Its decision is not among the events.",
        (
            Line(
                "A.6.2.8",
                "Event logs are kept at least while the system is in use",
                ("events", "began", "ended", "open", "removed", "discarded"),
            ),
            Line("A.6.2.8", "What goes in and out of it", ("messages", "tools", "models")),
            Line("A.6.2.8", "What went wrong", ("failures", "security")),
            Line("A.6.2.8", "What changed", ("registered", "versions", "releases")),
            Line("A.6.2.8", "How long logs are kept", ("six_months", "retention")),
            Line(
                _BESIDE, "Heads over the record, and changes of their key", ("checkpoints", "keys")
            ),
            Line(_BESIDE, "What was erased", ("erasures", "erased")),
        ),
    ),
    SOC2: Framework(
        "SOC 2, criteria CC7.2 and CC7.3: monitoring and evaluation of events",
        "The criteria concern the whole system of an organization; this outbox has its agents' "
        "events alone.",
        (
            Line(
                "CC7.2",
                "The system is monitored",
                ("events", "status", "heartbeats", "removed", "discarded"),
            ),
            Line("CC7.2", "Anomalies", ("failures", "security", "open")),
            Line("CC7.2", "Changes", ("registered", "versions", "releases")),
            Line("CC7.3", "Events are evaluated", ("actors", "acknowledged", "feedback")),
            Line(_BESIDE, "How long events are kept", ("six_months", "retention")),
            Line(
                _BESIDE, "Heads over the record, and changes of their key", ("checkpoints", "keys")
            ),
            Line(_BESIDE, "What was erased", ("erasures", "erased")),
        ),
    ),
}
"""The texts by the names that reports know them by."""

LIMITS = (
    (
        "Whether a text applies, and whether it is met: that is for people who know both it and "
        "the system."
    ),
    (
        "The texts themselves: what they ask is given in our words, and not from their official "
        "publications. Read the text in force."
    ),
    "The truth of what was recorded: a head proves what was logged, not that it is true.",
    (
        "Who rewrote events before another party saw a head over them: until then, somebody with "
        "the device's user and key could; offline, that may be days."
    ),
    "Independence: a witness that the same organization runs is no independent one.",
    "The time of an event: that is the device's clock.",
    "Copies: what was erased lives on in backups, exports and earlier reports.",
    "Delivered events whose time in this outbox is over: they are where they were delivered.",
)
"""What a report does not show."""
