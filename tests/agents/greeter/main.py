import asyncio

HELLO = {"en": "Hello", "de": "Hallo", "fr": "Bonjour"}


def greet(name, language="en", *, shout=False):
    """Greet somebody."""
    text = f"{HELLO[language]}, {name}!"
    return text.upper() if shout else text


def count_down(start: int = 3):
    while start > 0:
        yield start
        start -= 1
    yield "lift-off"


async def slow_greet(name: str) -> dict:
    await asyncio.sleep(0.01)
    return {"greeting": greet(name), "length": len(name)}


def fail(reason: str = "no reason"):
    raise RuntimeError(f"failed on purpose: {reason}")
