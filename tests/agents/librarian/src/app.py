import os
from collections import namedtuple
from typing import List, Optional

from catalogue import BOOKS, Book

Loan = namedtuple("Loan", "title days library")


class Shelf:
    def __init__(self, books: List[Book]):
        self.books = books

    async def walk(self, author: Optional[str] = None):
        for book in self.books:
            if author is None or book.author == author:
                yield book


class Desk:
    def __init__(self):
        # read while importing, as agents read their keys
        self.name = os.environ["LIBRARY_NAME"]
        self.days = int(os.getenv("LOAN_DAYS", "7"))
        self.shelf = Shelf(BOOKS)
        self.lent = set()

    def lend(self, title: str, days: Optional[int] = None) -> Loan:
        if title in self.lent:
            raise ValueError(f"{title} is already lent")
        if title not in [book.title for book in self.shelf.books]:
            raise KeyError(title)
        self.lent.add(title)
        return Loan(title, days or self.days, self.name)

    def search(self, author: str):
        return {"books": [book for book in self.shelf.books if author.lower() in book.author.lower()]}


desk = Desk()
