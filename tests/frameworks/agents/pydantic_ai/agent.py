"""An agent with one tool and a typed answer. Its model is a function, as in tests: no provider, no key."""

from collections.abc import AsyncIterator

from pydantic import BaseModel
from pydantic_ai import Agent, ModelMessage, ModelResponse, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel

DEGREES = {"Oslo": 4.5, "Rome": 19.0}


class Weather(BaseModel):
    city: str
    degrees: float


def _model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """What a language model would say: call the tool, then put its answer into the result."""
    city = messages[0].parts[-1].content.rpartition(" ")[2].rstrip("?")
    last = messages[-1].parts[-1]
    if last.part_kind == "tool-return":
        final = info.output_tools[0].name
        return ModelResponse(parts=[ToolCallPart(final, {"city": city, "degrees": last.content})])
    return ModelResponse(parts=[ToolCallPart("temperature", {"city": city})])


weather = Agent(FunctionModel(_model), output_type=Weather)
writer = Agent(TestModel(custom_output_text="Cold in Oslo, warm in Rome."))


@weather.tool_plain
def temperature(city: str) -> float:
    """Degrees Celsius in a city."""
    return DEGREES[city]


async def ask(question: str) -> Weather:
    """The model calls the tool, and the answer is checked against its type."""
    return (await weather.run(question)).output


def ask_sync(question: str) -> Weather:
    """The same with an event loop of pydantic-ai's own."""
    return weather.run_sync(question).output


async def ask_stream(question: str) -> AsyncIterator[str]:
    """Text as it comes."""
    async with writer.run_stream(question) as result:
        async for text in result.stream_text(delta=True, debounce_by=None):
            yield text
