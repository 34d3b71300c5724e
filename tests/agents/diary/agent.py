import os
import sys

import wordcount

from .pages import Page, load, save

print("diary: loaded", os.environ["DIARY_OWNER"])


def write(text: str, day: int = 1) -> Page:
    print("writing day", day)
    print("a word to stderr", file=sys.stderr)
    page = Page(day, text, wordcount.count(text))
    save(page)
    return page


def read(day: int = 1) -> str:
    return load(day)


def read_stream(day: int = 1):
    yield from load(day).split()


def whoami():
    return [os.environ["DIARY_OWNER"], os.environ["DIARY_MOOD"], os.environ["DIARY_PLACE"], os.getcwd() == os.path.dirname(os.path.abspath(__file__))]
