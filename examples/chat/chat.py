"""A small conversational agent: rules for manners, a memory for substance.

Written the way RunAgent's agents are: plain functions, relative paths, the standard library only.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

from memory import Line, Memory
from replies import reply_to

STORAGE = "chat_storage"


def chat(message: str, conversation: str = "default") -> str:
    """Answer one message. What was said before in the same conversation is remembered."""
    with Memory(STORAGE) as memory:
        answer = reply_to(message, memory.conversation(conversation))
        memory.add(conversation, "user", message)
        memory.add(conversation, "agent", answer)
    return answer


def chat_stream(message: str, conversation: str = "default", pause: float = 0.0) -> Iterator[str]:
    """Answer one message word by word; joined together the pieces are the whole answer."""
    for piece in re.findall(r"\S+\s*", chat(message, conversation)):
        yield piece
        if pause > 0:
            time.sleep(min(pause, 1.0))


def history(conversation: str = "default", limit: int = 20) -> list[Line]:
    """The last lines of a conversation, oldest first."""
    with Memory(STORAGE) as memory:
        return memory.last(conversation, limit)


def forget(conversation: str = "default") -> int:
    """Drop a conversation; gives the number of lines that are gone."""
    with Memory(STORAGE) as memory:
        return memory.forget(conversation)
