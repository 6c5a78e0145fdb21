"""A help desk that answers from a handbook, written as programs for langfuse are written.

What such a program says there, and what it says here:

- ``Langfuse(environment=…, release=…)``: `tracker.configure`
- ``@observe()``, also over async functions and generators: ``@tracker.observe``
- ``start_as_current_observation(as_type="span")``, ``update(output=…)``: `tracker.span`
- the same with ``as_type="generation"``, ``model`` and ``usage_details``: a span, and in it
  `llm.record_usage`
- ``propagate_attributes(session_id=…, user_id=…)``: `tracker.conversation`
- ``propagate_attributes(tags=…, metadata=…)``: `Tracker.context`
- ``create_event``: `Tracker.track`
- ``create_score``, of a session, a trace or an observation: `Tracker.record_score`
- ``api.trace.get``: `Tracker.get_trace`; ``flush``: not needed
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

import tracker

if TYPE_CHECKING:
    from collections.abc import Iterator

HANDBOOK = {
    "delivery": "Orders are delivered within three days.",
    "returns": "Goods can be returned within thirty days.",
    "opening": "The shop is open from nine to five.",
}
QUESTIONS = ["When is my delivery due?", "Can I make returns?", "Who are you?"]

tracker.configure(environment="staging", release="2.1.0", tags={"team": "support"})


@tracker.observe
def embed(text: str) -> set[str]:
    return {word.strip("?.").lower() for word in text.split()}


def retrieve(question: str) -> list[str]:
    with tracker.span("retrieve", input=question, attributes={"index": "handbook"}) as span:
        words = embed(question)
        span.output = [text for topic, text in HANDBOOK.items() if topic in words]
        span.attributes["hits"] = len(span.output)
        return list(span.output)


def generate(question: str, documents: list[str]) -> str:
    prompt = [
        {"role": "system", "content": "Answer from the documents only."},
        {"role": "user", "content": f"{question}\n\n{documents}"},
    ]
    with tracker.span("generate", input=prompt, attributes={"temperature": 0.2}) as generation:
        if not documents:
            raise LookupError("nothing in the handbook is about that")
        generation.output = documents[0]
        tracker.get_tracker().llm.record_usage(
            "openai", "gpt-4o", len(str(prompt)) // 4, len(documents[0]) // 4, cost_usd=0.002
        )
        return documents[0]


@tracker.observe
def stream(answer: str) -> Iterator[str]:
    yield from answer.split()


@tracker.observe
async def moderate(text: str) -> bool:
    await asyncio.sleep(0)
    return "damn" not in text


@tracker.observe(name="answer", capture_output=False)
async def answer(question: str) -> str:
    allowed, documents = await asyncio.gather(
        moderate(question), asyncio.to_thread(retrieve, question)
    )
    assert allowed
    try:
        found = generate(question, documents)
    except LookupError:
        tracker.get_tracker().track("question.unanswered", {"question": question})
        found = "I do not know. A colleague will write to you."
    return " ".join(stream(found))


async def serve(user: str, question: str) -> tuple[str, str]:
    """Answer one question; return the ids of the conversation and of its trace."""
    desk = tracker.get_tracker()
    with (
        desk.context(tenant="north", tags={"experiment": "b"}),
        tracker.conversation("help-desk", user_id=user, metadata={"channel": "web"}) as c,
        tracker.span("request") as request,
    ):
        c.user(question)
        said = await answer(question)
        message = c.agent(said, model="gpt-4o")
        judge(message, question, said)
        c.end(outcome="answered" if said in HANDBOOK.values() else "passed on")
    desk.record_score("complete", value=True, trace_id=request.trace_id, source="judge")
    return c.session_id, request.trace_id


@tracker.observe(capture_input=False)
def judge(message: str, question: str, said: str) -> None:
    """Judge an answer, as a second model would."""
    asked, answered = embed(question), embed(said)
    overlap = len(asked & answered) / len(asked)
    tracker.get_tracker().record_score("overlap", overlap, event_id=message, source="judge")


async def main() -> None:
    served = await asyncio.gather(
        *(serve(f"user-{number}", question) for number, question in enumerate(QUESTIONS))
    )
    desk = tracker.get_tracker()
    for session_id, _ in served[:2]:  # later, in the user interface
        desk.record_score("helpful", 1.0, session_id=session_id, comment="thanks", source="user")
    json.dump(served, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
