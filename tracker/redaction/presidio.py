"""`PresidioRedactor`: masks what Microsoft Presidio finds.

This package never imports it, since it needs the extra ``agent-tracking-sdk[presidio]``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from tracker.redaction.rules import MASK, mask_of

try:
    import tldextract
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import NoOpNlpEngine
    from presidio_analyzer.predefined_recognizers import EmailRecognizer
    from presidio_anonymizer import AnonymizerEngine
    from presidio_anonymizer.entities import OperatorConfig
except ImportError as error:
    raise ImportError(
        f"{error}; install the extra: pip install 'agent-tracking-sdk[presidio]'"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_SCORE = 0.5
"""Presidio scores ambiguous patterns below this, unless words around them confirm them; a valid
check digit has a score of 1.0."""


class PresidioRedactor:
    """A function for ``APIConfig(redactors=[...])`` that masks what Presidio finds.

    ::

        config = APIConfig(redactors=[PresidioRedactor()])

    ``EMAIL_ADDRESS`` becomes ``[pii:email_address:medium]``, and the event counts it by that kind.
    Existing masks in a text are not changed.

    It runs for every string of every event, in the thread that logs. With all patterns, it takes
    about a millisecond for a short text and 17 for one of 860 characters; with two kinds of
    `entities`, a fifth of that; and much longer with a language model.

    Args:
        analyzer: A `presidio_analyzer.AnalyzerEngine` of your own, with a language model for names
            and places, or with your own recognizers. By default, Presidio's pattern recognizers for
            English without a model; nothing is downloaded, and the network is not used.
        language: The language passed to the analyzer. Default ``"en"``.
        entities: The entities to find, by Presidio's names, such as ``["EMAIL_ADDRESS",
            "US_SSN"]``. By default all that the analyzer knows, including dates and URLs.
        score_threshold: Findings with a lower score, from 0 to 1, are ignored. Default 0.5.
    """

    def __init__(
        self,
        analyzer: AnalyzerEngine | None = None,
        *,
        language: str = "en",
        entities: Sequence[str] | None = None,
        score_threshold: float = DEFAULT_SCORE,
    ) -> None:
        self._analyzer = _by_patterns(language) if analyzer is None else analyzer
        self._anonymizer = AnonymizerEngine()
        self._asked = {
            "language": language,
            "entities": None if entities is None else list(entities),
            "score_threshold": score_threshold,
        }

    def __call__(self, text: str) -> str:
        """Return `text` with masks for what Presidio finds."""
        masks = [mask.span() for mask in MASK.finditer(text)]
        found = [
            result
            for result in self._analyzer.analyze(text, **self._asked)
            if not any(result.start < end and start < result.end for start, end in masks)
        ]
        if not found:
            return text
        # Presidio's own rules resolve overlapping findings.
        operators = {result.entity_type: _masking(result.entity_type) for result in found}
        clean: str = self._anonymizer.anonymize(text, found, operators).text
        return clean


def _masking(entity_type: str) -> OperatorConfig:
    return OperatorConfig("custom", {"lambda": partial(mask_of, "pii", entity_type.lower())})


def _by_patterns(language: str) -> AnalyzerEngine:
    """Return an analyzer that uses only patterns and check digits."""
    registry = RecognizerRegistry(supported_languages=[language])
    registry.load_predefined_recognizers(languages=[language])
    registry.remove_recognizer("SpacyRecognizer")  # it needs a model
    registry.remove_recognizer("EmailRecognizer")
    registry.add_recognizer(_EmailRecognizer(supported_language=language))
    engine = NoOpNlpEngine([{"lang_code": language, "model_name": "none"}])
    return AnalyzerEngine(registry, engine, supported_languages=[language])


# Presidio's own downloads the list of domains on first use.
_domains = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)


class _EmailRecognizer(EmailRecognizer):  # type: ignore[misc]  # untyped if Presidio is not installed
    def validate_result(self, pattern_text: str) -> Any:
        return _domains(pattern_text).fqdn != ""
