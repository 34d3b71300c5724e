"""A stream without an end, for what is to end it."""

import time
from collections.abc import Iterator


def ticks() -> Iterator[int]:
    """A number every 10 ms."""
    number = 0
    while True:
        yield number
        number += 1
        time.sleep(0.01)
