"""OpenAI's client against a stand-in. With a real API only `base_url`, the key and the transport would be others."""

from collections.abc import Iterator

import httpx2
import openai
import stand_in

stand_in.start()
_SETTINGS = {"base_url": "http://localhost/v1", "api_key": "no-key", "max_retries": 0}
client = openai.OpenAI(http_client=httpx2.Client(transport=httpx2.HTTPTransport(uds=stand_in.PATH)), **_SETTINGS)
aclient = openai.AsyncOpenAI(
    http_client=httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=stand_in.PATH)), **_SETTINGS
)


def _asked(question: str) -> dict:
    return {"model": "stand-in", "messages": [{"role": "user", "content": question}]}


def chat(question: str) -> str | None:
    """One answer."""
    return client.chat.completions.create(**_asked(question)).choices[0].message.content


async def achat(question: str) -> openai.types.chat.ChatCompletion:
    """The same with the asynchronous client, and all that the API answers."""
    return await aclient.chat.completions.create(**_asked(question))


def chat_stream(question: str) -> Iterator[str | None]:
    """The answer word by word."""
    for chunk in client.chat.completions.create(stream=True, **_asked(question)):
        yield chunk.choices[0].delta.content


def call_the_real_one(question: str) -> str | None:
    """What an agent does that was written for a machine with a network."""
    real = openai.OpenAI(api_key="no-key", max_retries=0)
    return real.chat.completions.create(**_asked(question)).choices[0].message.content
