import os

FOLDER = "chat_storage"


class Page:
    def __init__(self, day, text, words):
        self.day = day
        self.text = text
        self.words = words
        self._secret = "not for callers"


def path_of(day):
    return os.path.join(FOLDER, f"{day}.txt")


def save(page):
    os.makedirs(FOLDER, exist_ok=True)
    with open(path_of(page.day), "w") as file:
        file.write(page.text)


def load(day):
    with open(path_of(day)) as file:
        return file.read()
