"""`persistent_folders`: plain, separate folders below the agent's own."""

from __future__ import annotations

import pytest

from tests.loader.folders import SHORT, load, manifest, problems


def test_folders_are_kept_in_their_plainest_spelling() -> None:
    made = manifest({**SHORT, "persistent_folders": ["./chat_storage/", "rad//db", "rad2"]})
    assert made.persistent_folders == ("chat_storage", "rad/db", "rad2")


@pytest.mark.parametrize(
    "folder",
    ["", ".", "..", "/", "/etc", "a/../..", "a\0b", "a\nb", 5, None, "x" * 256, "a/b/c/d/e/f/g/h/i"],
)
def test_anything_but_a_folder_below_the_agents_is_refused(folder: object) -> None:
    (text,) = problems(load({**SHORT, "persistent_folders": [folder]}))
    assert text.startswith("runagent.config.json: persistent_folders[0]: ")
    assert text.endswith("is not a folder below the agent's")


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["a", "a/"], 'persistent_folders[1]: "a/" stands twice'),
        (["a/b", "a"], 'persistent_folders[0]: "a/b" lies within "a"'),
        (["main.py"], 'persistent_folders[0]: "main.py" is a file, not a folder'),
        (["src"], 'persistent_folders[0]: "src" holds the agent\'s own "src/app.py", which would be hidden'),
        ("data", 'persistent_folders: "data" is not a list'),
        ([f"f{n}" for n in range(33)], "persistent_folders: has 33 folders, more than 32"),
    ],
)
def test_folders_that_would_disturb_each_other_or_the_agent_are_refused(folders: object, expected: str) -> None:
    entries = [{"file": "src/app.py", "module": "run", "tag": "main"}]
    report = load({"agent_name": "x", "entrypoints": entries, "persistent_folders": folders}, **{"src/app.py": ""})
    assert problems(report) == [f"runagent.config.json: {expected}"]


def test_content_that_will_be_hidden_is_mentioned() -> None:
    assert manifest({**SHORT, "persistent_folders": ["data"]}, **{"data/seed.csv": ""}).hints == (
        (
            'runagent.config.json: persistent_folders[0]: what the folder has in "data" is hidden: it starts empty, '
            "and is kept"
        ),
    )
