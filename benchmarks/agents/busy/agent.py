"""A function that holds its place for five milliseconds."""

import time


def work() -> int:
    """Nothing, for a while."""
    time.sleep(0.005)
    return 1
