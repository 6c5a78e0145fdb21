"""Programs of agents that instrumentors watch: each asks a model where some orders are.

The arguments of such a program are the numbers of the orders. Each is a conversation of its own,
and is printed when that has ended.
"""

from __future__ import annotations

_BEGIN = '''
import sys

from tracker import Tracker
from tracker.otel import instrument

tracker = Tracker()
instrument(tracker, started=True)


def find_order(number: int) -> str:
    """Find an order by its number."""
    return f"order {number} was sent"
'''
_END = """
for number in map(int, sys.argv[1:]):
    with tracker.conversation("orders", user_id=f"user_{number}"):
        ask(f"Where is order {number}?")
    print(number, flush=True)
tracker.close(timeout=5)
"""

_LANGCHAIN = """
from langchain.agents import create_agent

agent = create_agent("openai:gpt-4o-mini", tools=[find_order])


def ask(question):
    agent.invoke({"messages": [{"role": "user", "content": question}]})
"""
_OPENAI_AGENTS = """
from agents import Agent, Runner, function_tool

agent = Agent(name="orders", model="gpt-4o-mini", tools=[function_tool(find_order)])


def ask(question):
    Runner.run_sync(agent, question)
"""
_PYDANTIC_AI = """
from pydantic_ai import Agent

Agent.instrument_all()
agent = Agent("openai:gpt-4o-mini", tools=[find_order])


def ask(question):
    agent.run_sync(question)
"""
_OPENAI = """
import json

from openai import OpenAI
from opentelemetry import trace

client = OpenAI()
schema = {"type": "object", "properties": {"number": {"type": "integer"}}}
tools = [{"type": "function", "function": {"name": "find_order", "parameters": schema}}]


def said(messages):
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=messages, tools=tools)
    return answer.choices[0].message


def ask(question):
    with trace.get_tracer("orders").start_as_current_span("answer"):
        tracker.log_user_message(content=question)
        messages = [{"role": "user", "content": question}]
        messages.append(said(messages))
        (call,) = messages[-1].tool_calls
        arguments = json.loads(call.function.arguments)
        found = find_order(**arguments)
        messages.append({"role": "tool", "tool_call_id": call.id, "content": found})
        tracker.log_tool_call(
            name="find_order", arguments=arguments, result=found, call_id=call.id
        )
        tracker.log_agent_message(content=said(messages).content)
"""

PROGRAMS = {
    framework: _BEGIN + ask + _END
    for framework, ask in {
        "langchain": _LANGCHAIN,
        "langchain_openinference": _LANGCHAIN,
        "openai_agents": _OPENAI_AGENTS,
        "pydantic_ai": _PYDANTIC_AI,
        "openai": _OPENAI,
    }.items()
}
"""Programs by the environment that they run in, whose instrumentors follow several conventions. The
last one logs its messages and the tool call itself, in a span."""
