"""An echo whose answers are kept."""


def echo(text: str) -> str:
    """The argument."""
    return text
