"""What is run of each framework besides the program on the page: streams and tools."""

# Lines that follow the page's program, in the same namespace.
OPENAI = """
tool = {"name": "find_order", "description": "Find an order.",
        "parameters": {"type": "object", "properties": {"number": {"type": "integer"}}}}
tools = [{"type": "function", "function": tool}]
with tracker.conversation("agent_123", user_id="user_7"):
    usage = {"include_usage": True}
    list(client.chat.completions.create(model="gpt-4o-mini", messages=question, stream=True,
                                        stream_options=usage))
    client.chat.completions.create(model="gpt-4o-mini", messages=question, tools=tools)
    client.responses.create(model="gpt-4o-mini", input="Where is order 7?")
    list(client.responses.create(model="gpt-4o-mini", input="Where is order 7?", stream=True))
    client.responses.create(model="gpt-4o-mini", input="Where is order 7?",
                            tools=[{"type": "function", **tool}])
"""
ANTHROPIC = """
schema = {"type": "object", "properties": {"number": {"type": "integer"}}}
tools = [{"name": "find_order", "description": "Find an order.", "input_schema": schema}]
asked = {"model": "claude-haiku-4-5", "max_tokens": 99, "messages": question}
with tracker.conversation("agent_123", user_id="user_7"):
    client.messages.create(**asked, tools=tools)
    list(client.messages.create(**asked, stream=True))
    with client.messages.stream(**asked) as stream:
        list(stream.text_stream)
"""
LANGCHAIN = """
with tracker.conversation("agent_123", user_id="user_7"):
    list(agent.stream({"messages": [{"role": "user", "content": "Where is order 7?"}]},
                      stream_mode="messages"))
"""
AGENTS = """
import asyncio
from agents import set_default_openai_client
from openai import AsyncOpenAI
async def streamed():
    set_default_openai_client(AsyncOpenAI())  # the former one belongs to a loop that is closed
    result = Runner.run_streamed(agent, "Where is order 7?")
    async for _ in result.stream_events():
        pass
with tracker.conversation("agent_123", user_id="user_7"):
    asyncio.run(streamed())
"""
PYDANTIC_AI = """
import asyncio
async def streamed():
    async with agent.run_stream("Where is order 7?") as result:
        async for _ in result.stream_text():
            pass
with tracker.conversation("agent_123", user_id="user_7"):
    asyncio.run(streamed())
"""
LITELLM = """
with tracker.conversation("agent_123", user_id="user_7"):
    list(litellm.completion(model="openai/gpt-4o-mini", messages=question, stream=True))
"""
MCP = """
import asyncio, sys
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

SERVER = '''
from tracker.otel import instrument
from tracker import Tracker
provider, _ = instrument(Tracker())
from mcp.server import MCPServer
server = MCPServer("orders")
@server.tool()
def find_order(number: int) -> str:
    with provider.get_tracer("server").start_as_current_span("of the server"):
        return "sent"
server.run()
'''

async def call():
    import os
    parameters = StdioServerParameters(command=sys.executable, args=["-c", SERVER],
                                       env=dict(os.environ))
    async with stdio_client(parameters) as (read, write), ClientSession(read, write) as session:
        await session.initialize()
        with provider.get_tracer("client").start_as_current_span("of the client"):
            await session.call_tool("find_order", {"number": 7})
with tracker.conversation("agent_123", user_id="user_7"):
    asyncio.run(call())
"""
END = """
print()
print(f"otel_dropped={tracker.health().otel_dropped}")
tracker.close(timeout=0)
"""
