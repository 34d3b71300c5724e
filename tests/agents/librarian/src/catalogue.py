from dataclasses import dataclass
from datetime import date


@dataclass
class Book:
    title: str
    author: str
    published: date


BOOKS = [
    Book("Emma", "Jane Austen", date(1815, 12, 23)),
    Book("Persuasion", "Jane Austen", date(1817, 12, 20)),
    Book("Dracula", "Bram Stoker", date(1897, 5, 26)),
]
