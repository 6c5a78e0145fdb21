"""Calls to language models: tokens, cost and latency."""

from __future__ import annotations

import functools
from datetime import timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from tracker import late_imports, log, queries, validation
from tracker.events import LLM_USED
from tracker.once import Once
from tracker.trackers.base import BaseTracker

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from types import ModuleType
    from typing import Literal

    from tracker.queries.usage import LLMUsage

logged = Once(most=100)


class LLMTracker(BaseTracker):
    """Logs the usage of language models, and reads it back from this outbox.

    Every logging call returns the event's id, once the event is stored in the outbox. With the
    extra ``agent-tracking-sdk[cost]`` installed, missing costs are computed from the price list of
    the package ``genai-prices``, without network access.

    Raises:
        ValidationError: from any call, if an argument is not allowed; nothing is stored.
        OutboxError: from any read, if the outbox cannot be read; from any logging call, if storage
            failed and `APIConfig.on_error` is "raise".
        TrackerClosedError: from any call after `close`.
    """

    def record_usage(
        self,
        provider: str,
        model: str,
        prompt_tokens: int,
        completion_tokens: int,
        *,
        session_id: str | None = None,
        agent_id: str | None = None,
        latency_ms: float | None = None,
        time_to_first_token_ms: float | None = None,
        cached_tokens: int | None = None,
        cache_write_tokens: int | None = None,
        cost_usd: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        timestamp: datetime | int | None = None,
    ) -> str:
        """Log one call to a model and return the event's id. The total of tokens is computed.

        Args:
            provider: The provider, such as ``"openai"``, ``"anthropic"`` or ``"aws"``.
            model: The provider's name for the model.
            prompt_tokens: Tokens sent, 0 or more, including those read from and written to the
                provider's cache. Anthropic's ``input_tokens`` excludes both: add them. If the
                figure is smaller than these, they are added to it.
            completion_tokens: Tokens received, 0 or more, including reasoning tokens.
            session_id: The conversation it was for; by default the current one, if there is one.
            agent_id: The agent that made the call; by default that of the conversation.
            latency_ms: Milliseconds until the answer was complete; rounded to 2 decimals.
            time_to_first_token_ms: Milliseconds until it started; rounded to 2 decimals.
            cached_tokens: Prompt tokens read from the provider's cache
                (``cache_read_input_tokens`` at Anthropic).
            cache_write_tokens: Prompt tokens written to the provider's cache
                (``cache_creation_input_tokens`` at Anthropic).
            cost_usd: Cost in US dollars, 0 or more. By default it is computed if the extra
                ``[cost]`` is installed and knows the model's prices; ``price_data`` in the event
                is then the version of the price list. An unknown cost is left out, never 0. The
                first computation in a process takes some 0.3 s, to load the list.
            metadata: Additional data.
            timestamp: When it happened, for records of earlier: an aware datetime, or Unix
                milliseconds. Default: now.
        """
        data: dict[str, Any] = {
            "provider": validation.check_id("provider", provider),
            "model": validation.check_id("model", model),
            **_tokens(prompt_tokens, completion_tokens, cached_tokens, cache_write_tokens),
            "latency_ms": validation.optional(
                validation.check_milliseconds, "latency_ms", latency_ms
            ),
            "time_to_first_token_ms": validation.optional(
                validation.check_milliseconds, "time_to_first_token_ms", time_to_first_token_ms
            ),
            "cost_usd": validation.optional(validation.check_cost, "cost_usd", cost_usd),
            "metadata": self._metadata("metadata", metadata),
        }
        session_id = validation.check_optional_id("session_id", session_id)
        agent_id = validation.check_optional_id("agent_id", agent_id)
        self._check_open()
        if cost_usd is None:
            data["cost_usd"], data["price_data"] = _price(data)
        return self._record_about(
            LLM_USED, data, session_id=session_id, agent_id=agent_id, timestamp=timestamp
        )

    def get_usage(
        self,
        by: Literal["model", "agent", "session", "day"] = "model",
        *,
        since: datetime | int | None = None,
        until: datetime | int | None = None,
        environment: str | None = None,
        release: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> list[LLMUsage]:
        """Return tokens and cost by model, agent, session or day.

        It covers the events of all processes that are still in this outbox, which delivered events
        leave after `APIConfig.retention_days`.

        Args:
            by: ``"model"`` (default), ``"agent"``, ``"session"``, or ``"day"`` for UTC days.
            since: Only events logged at this time or later: an aware datetime, or Unix
                milliseconds.
            until: Only events logged before this time.
            environment: Only events logged in this environment.
            release: Only events logged by this release.
            tags: Only events that have each of these tags.

        Returns:
            Days in order; models, agents and sessions with the most tokens first.
        """
        by_ = validation.check_choice("by", by, queries.usage.BY)
        wanted = queries.filters.checked(
            since=validation.check_since("since", since),
            until=validation.check_since("until", until),
            environment=environment,
            release=release,
            tags=tags,
        )
        self._check_open()
        return self._client.read(lambda connection: queries.usage.usage(connection, by_, wanted))


class _Price(NamedTuple):
    """A cost in US dollars, and the version of the price list."""

    cost_usd: float | None = None
    price_data: str | None = None


def _tokens(
    prompt: int, completion: int, cached: int | None, written: int | None
) -> dict[str, int | None]:
    """Return the counts of tokens, checked, with their total, as an event has them."""
    prompt = validation.check_tokens("prompt_tokens", prompt)
    completion = validation.check_tokens("completion_tokens", completion)
    cached = validation.optional(validation.check_tokens, "cached_tokens", cached)
    written = validation.optional(validation.check_tokens, "cache_write_tokens", written)
    sent = _with_cache(prompt, cached, written)
    total = validation.check_tokens("prompt_tokens + completion_tokens", sent + completion)
    return {
        "prompt_tokens": sent,
        "completion_tokens": completion,
        "total_tokens": total,
        "cached_tokens": cached,
        "cache_write_tokens": written,
    }


def _with_cache(prompt: int, cached: int | None, written: int | None) -> int:
    """Return all tokens sent, even if a provider's figure excludes those of its cache."""
    of_cache = (cached or 0) + (written or 0)
    if of_cache <= prompt:
        return prompt
    _say_once(
        "prompt_tokens is less than the tokens of the cache, which are added to it. Give all "
        "tokens sent, including those of the cache"
    )
    return prompt + of_cache


@late_imports.whole()  # the price list imports more of itself when a price is first asked for
def _price(call: Mapping[str, Any]) -> _Price:
    """Return the cost of a call, given by its event's data; none if the price list lacks it."""
    provider, model = call["provider"], call["model"]
    prices = price_list()
    if prices is None:
        return _Price()
    try:
        found = prices.calc_price(
            prices.Usage(
                input_tokens=call["prompt_tokens"],
                output_tokens=call["completion_tokens"],
                cache_read_tokens=call["cached_tokens"],
                cache_write_tokens=call["cache_write_tokens"],
            ),
            model,
            provider_id=provider,
        )
        # The list treats a missing price as free: models for pictures and speech, and gaps in it.
        per_token = found.model_price
        if (call["prompt_tokens"] and per_token.input_mtok is None) or (
            call["completion_tokens"] and per_token.output_mtok is None
        ):
            return _unknown(provider, model)
        version = f"genai-prices {prices.__version__}"
        if found.auto_update_timestamp is not None:  # the application enabled updates of the list
            updated = found.auto_update_timestamp.astimezone(timezone.utc)
            version += f", updated {updated:%Y-%m-%dT%H:%M:%SZ}"
        return _Price(float(found.total_price), version)
    except (LookupError, ValueError):  # not in the list
        return _unknown(provider, model)
    except Exception as error:  # noqa: BLE001 - an error in a price list must not lose the event
        _say_once(f"genai-prices failed ({error!r}); events are logged without the cost")
        return _Price()


@functools.cache
def price_list() -> ModuleType | None:
    """Return the module genai_prices; None without the extra ``[cost]``."""
    try:
        import genai_prices  # optional, and slow to load
    except ImportError:
        return None
    return genai_prices


def _unknown(provider: str, model: str) -> _Price:
    _say_once(
        f"the price list does not know the model {model!r} of {provider!r}: its calls are logged "
        "without a cost. Give cost_usd, or install a newer genai-prices"
    )
    return _Price()


def _say_once(said: str) -> None:
    if logged.is_new(said):
        log.warning("%s", said)
