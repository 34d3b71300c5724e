"""Configurations as RunAgent's users have them, and what a person is told about one that is wrong."""

from __future__ import annotations

import json

import pytest

from runagentd.wire.manifest import Entrypoint, Extraction
from tests.loader.folders import SHORT, hints, load, load_files, manifest, problems

CORE_CONCEPTS = {
    "agent_name": "my-agent",
    "description": "What my agent does",
    "framework": "custom",
    "agent_architecture": {"entrypoints": [{"file": "main.py", "module": "run", "tag": "main"}]},
}
LONG = {
    "agent_name": "Demo Agent",
    "description": "answers",
    "framework": "langgraph",
    "template": "problem_solver",
    "version": "1.0.0",
    "created_at": "2025-06-25 13:42:03",
    "template_source": {"repo_url": "https://example.org", "author": "someone", "path": "templates"},
    "agent_id": "00000000-0000-0000-0000-000000000000",
    "agent_architecture": {
        "entrypoints": [
            {
                "file": "main.py", "module": "app.invoke", "tag": "solve",
                "extractor": {"answer": "$.messages[-1].content"},
            },
            {"file": "main.py", "module": "app.stream", "tag": "solve_stream", "description": "as it goes"},
        ]
    },
    "env_vars": {"MODEL": "small"},
    "auth_settings": {"type": "api_key"},
    "persistent_folders": ["chat_storage/"],
    "metadata": {"runtime": "x"},
    "something_new": [1, 2, 3],
}  # fmt: skip


def test_the_documentations_short_form_gets_defaults() -> None:
    made = manifest(CORE_CONCEPTS)
    assert made.agent_name == "my-agent"
    assert made.framework == "custom"
    assert made.version == ""
    assert made.entrypoints == (Entrypoint(tag="main", file="main.py", module="run"),)
    assert (made.environment, made.persistent_folders, made.import_paths, made.hints) == ((), (), (), ())


def test_runagents_long_form_loads_whole() -> None:
    made = manifest(LONG)
    assert made.entrypoints == (
        Entrypoint(
            tag="solve", file="main.py", module="app.invoke",
            extractor=(Extraction(name="answer", path="$.messages[-1].content"),),
        ),
        Entrypoint(tag="solve_stream", file="main.py", module="app.stream", description="as it goes"),
    )  # fmt: skip
    assert [(variable.name, variable.value) for variable in made.environment] == [("MODEL", "small")]
    assert made.persistent_folders == ("chat_storage",)
    assert made.hints == ("runagent.config.json: auth_settings: ignored: every caller needs a token of this daemon's",)


@pytest.mark.parametrize("written", [None, "", "00000000-0000-0000-0000-000000000000"])
def test_an_id_that_was_never_chosen_is_made_from_the_name(written: str | None) -> None:
    """Templates ship the null UUID; the id is then the same on every machine and in every life of the daemon."""
    assert manifest({**SHORT, "agent_id": written}).agent_id == "be700148-744e-5068-b566-4fc0f2ce8649"
    assert manifest(SHORT).agent_id == "be700148-744e-5068-b566-4fc0f2ce8649"


def test_an_id_that_was_chosen_is_kept() -> None:
    assert manifest({**SHORT, "agent_id": "my agent"}).agent_id == "my agent"


def test_old_files_with_a_type_instead_of_a_tag_load() -> None:
    entrypoints = [
        {"type": "generic", "file": "main.py", "module": "run"},
        {"type": "generic_stream", "file": "main.py", "module": "run_stream"},
    ]
    made = manifest({"agent_name": "old", "agent_architecture": {"entrypoints": entrypoints}})
    assert [entrypoint.tag for entrypoint in made.entrypoints] == ["generic", "generic_stream"]


def test_entrypoints_may_stand_at_the_top() -> None:
    made = manifest({"agent_name": "flat", "entrypoints": [{"file": "main.py", "module": "run", "tag": "main"}]})
    assert [entrypoint.tag for entrypoint in made.entrypoints] == ["main"]


def test_two_entrypoints_may_name_one_function() -> None:
    entry = {"file": "main.py", "module": "run"}
    entrypoints = [{**entry, "tag": "whole"}, {**entry, "tag": "part", "extractor": {"x": "$.x"}}]
    made = manifest({"agent_name": "two", "agent_architecture": {"entrypoints": entrypoints}})
    assert [entrypoint.module for entrypoint in made.entrypoints] == ["run", "run"]


def test_yaml_means_the_same_as_json() -> None:
    yaml = """\
# a comment
agent_name: demo
version: 1.10
agent_architecture:
  entrypoints:
    - {file: main.py, module: run, tag: main}
"""
    report = load_files({"runagent.config.yaml": yaml, "main.py": ""})
    assert report.manifest is not None
    assert (report.manifest.agent_name, report.manifest.version) == ("demo", "1.10")


def test_json_comes_before_yaml_and_the_other_is_mentioned() -> None:
    report = load(SHORT, **{"runagent.config.yml": "agent_name: other\n"})
    assert report.manifest is not None
    assert report.manifest.agent_name == "demo"
    assert report.manifest.hints == ("runagent.config.yml: ignored, because there is a runagent.config.json",)


def test_a_byte_order_mark_does_no_harm() -> None:
    report = load_files({"runagent.config.json": b"\xef\xbb\xbf" + json.dumps(SHORT).encode(), "main.py": ""})
    assert report.problems == ()


def test_a_file_in_a_folder_is_found_however_it_is_spelled() -> None:
    entry = {"file": "./src/../src/main.py", "module": "run", "tag": "main"}
    made = manifest({"agent_name": "x", "entrypoints": [entry]}, **{"src/main.py": ""})
    assert made.entrypoints[0].file == "src/main.py"


def test_a_policy_in_the_folder_is_ignored_with_a_hint() -> None:
    assert manifest({**SHORT, "policy": "tools"}).hints == (
        "runagent.config.json: policy: ignored: the operator chooses the policy, not the folder",
    )


def test_a_misspelled_optional_key_is_mentioned() -> None:
    assert manifest({**SHORT, "persistant_folders": ["x"]}).hints == (
        'runagent.config.json: persistant_folders: ignored: no such key; did you mean "persistent_folders"?',
    )


def test_a_streaming_function_under_a_plain_tag_is_mentioned() -> None:
    entry = {"file": "main.py", "module": "run_stream", "tag": "main"}
    assert manifest({"agent_name": "x", "entrypoints": [entry]}).hints == (
        (
            'runagent.config.json: entrypoints[0].tag: "run_stream" looks like a stream, but RunAgent\'s clients '
            'stream only from tags that end in "_stream"'
        ),
    )


def test_a_folder_without_a_configuration_says_what_the_smallest_is() -> None:
    report = load_files({"main.py": ""})
    assert problems(report) == ["runagent.config.json: the folder has no such file (nor .yaml or .yml)"]
    assert hints(report) == [
        (
            'make one; the smallest is {"agent_name": "my-agent", "agent_architecture": {"entrypoints": '
            '[{"file": "main.py", "module": "run", "tag": "main"}]}}'
        )
    ]


def test_a_misspelled_file_name_is_noticed() -> None:
    assert hints(load_files({"runagent.conf.json": "{}"}))[0] == '"runagent.conf.json" looks like it: rename it'


def test_every_problem_is_told_at_once() -> None:
    config = {
        "agent_nme": "demo",
        "version": ["1"],
        "agent_architecture": {
            "entrypoints": [
                {"file": "mani.py", "module": "run()", "tag": "main"},
                {"file": "main.py", "module": "run", "tag": "two"},
                {"file": "main.py", "module": "run", "tag": "two"},
                {"filee": "main.py", "module": "run", "tag": 3},
            ]
        },
        "env_vars": {"1BAD": "x", "NULL": None},
        "persistent_folders": ["../up", "data", "data/inner"],
    }
    report = load(config)
    assert problems(report) == [
        "runagent.config.json: agent_name: is missing",
        'runagent.config.json: agent_architecture.entrypoints[0].file: "mani.py" does not exist in the agent\'s folder',
        'runagent.config.json: agent_architecture.entrypoints[0].module: "run()" does not name a function',
        (
            'runagent.config.json: agent_architecture.entrypoints[2].tag: "two" is the tag of '
            "agent_architecture.entrypoints[1] too"
        ),
        "runagent.config.json: agent_architecture.entrypoints[3].file: is missing",
        "runagent.config.json: agent_architecture.entrypoints[3].tag: 3 is not a text",
        "runagent.config.json: env_vars.1BAD: \"1BAD\" is not a name: use letters, digits and '_', and no digit first",
        "runagent.config.json: env_vars.NULL: null is not text",
        'runagent.config.json: persistent_folders[0]: "../up" is not a folder below the agent\'s',
        'runagent.config.json: persistent_folders[2]: "data/inner" lies within "data"',
        "runagent.config.json: version: a list is not text",
    ]
    assert '"agent_nme" looks like it: rename it' in hints(report)
    assert 'did you mean "main.py"?' in hints(report)
    assert 'did you mean "run"?' in hints(report)
    assert '"filee" looks like it: rename it' in hints(report)


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        (None, "agent_architecture.entrypoints: the agent has no entrypoint"),
        ({}, "agent_architecture.entrypoints: the agent has no entrypoint"),
        ({"entrypoints": []}, "agent_architecture.entrypoints: the agent has no entrypoint"),
        ({"entrypoints": {}}, "agent_architecture.entrypoints: an object is not a list"),
        ({"entrypoints": "main.py"}, 'agent_architecture.entrypoints: "main.py" is not a list'),
        ({"entrypoints": ["main.py"]}, 'agent_architecture.entrypoints[0]: "main.py" is not an entrypoint'),
        ("main.py", 'agent_architecture: "main.py" is not an object'),
    ],
)
def test_an_agent_needs_entrypoints(architecture: object, expected: str) -> None:
    report = load({"agent_name": "x", "agent_architecture": architecture})
    assert problems(report) == [f"runagent.config.json: {expected}"]
    assert '{"file": "main.py", "module": "run", "tag": "main"}' in hints(report)[-1]


def test_a_webhook_entrypoint_is_refused_by_name() -> None:
    entry = {"webhook_url": "https://example.org/hook", "method": "post", "tag": "main"}
    assert problems(load({"agent_name": "x", "entrypoints": [entry]})) == [
        "runagent.config.json: entrypoints[0]: webhook entrypoints are not supported: runagentd serves Python functions"
    ]


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("../main.py", '"../main.py" is not a path below the agent\'s folder'),
        ("/etc/passwd", '"/etc/passwd" is not a path below the agent\'s folder'),
        ("src", '"src" is a folder, not a file'),
        ("data.csv", '"data.csv" is not a Python file: its name must end in .py'),
        ("main", '"main" does not exist in the agent\'s folder'),
        ("", '"" is not a text'),
        (5, "5 is not a text"),
        (None, "null is not a text"),
    ],
)
def test_an_entrypoints_file_is_a_python_file_of_the_folder(file: object, expected: str) -> None:
    entry = {"file": file, "module": "run", "tag": "main"}
    report = load({"agent_name": "x", "entrypoints": [entry]}, **{"src/a.py": "", "data.csv": ""})
    assert problems(report) == [f"runagent.config.json: entrypoints[0].file: {expected}"]


@pytest.mark.parametrize("module", ["a-b", "a..b", ".a", "1a", "a b", "class", "a.import", "x" * 201, "a\0"])
def test_a_function_is_named_by_identifiers(module: str) -> None:
    report = load({"agent_name": "x", "entrypoints": [{"file": "main.py", "module": module, "tag": "main"}]})
    assert [text.endswith("does not name a function") for text in problems(report)] == [True]


@pytest.mark.parametrize("name", ["", " ", 5, None, ["x"], "x" * 201, "a\nb", "a\x1b[2J", "\ud800"])
def test_a_name_is_printable_text(name: object) -> None:
    report = load({**SHORT, "agent_name": name})
    assert len(report.problems) == 1
    assert report.problems[0].where == "runagent.config.json: agent_name"
    assert report.problems[0].what.endswith("is not a text of 1 to 200 printable characters")
    assert report.problems[0].what.isprintable()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "line 1, column 1: a value is expected, but the file ends"),
        (b'{"a": 1,}', "line 1, column 9: expecting property name enclosed in double quotes (found '}')"),
        (b'{"a": True}', "line 1, column 7: a value is expected, not 'T'"),
        (b'{"a": 1, "a": 2}', "the key 'a' stands twice in one object"),
        (b"[]", "holds a list, but must hold an object"),
        (b"null", "is empty"),
        (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
        (b"[" * 100_000, "values lie in each other more than 32 deep"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "values lie in each other more than 32 deep"),
        (b"[" + b"1," * 30_000 + b"1]", "has more than 20,000 values"),
        (b" " * (1024 * 1024 + 1), "is larger than 1024 KiB"),
    ],
)
def test_json_that_is_none_is_explained(content: bytes, expected: str) -> None:
    assert problems(load_files({"runagent.config.json": content})) == [f"runagent.config.json: {expected}"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"- a\n", "holds a list, but must hold an object"),
        (b"a: 1\na: 2\n", "the key 'a' stands twice in one object"),
        (b"a: &x [1]\nb: *x\n", "line 2, column 4: an alias (*name) is not supported here; write the value out"),
        (b"a: !!python/object/apply:os.system [id]\n",
         "line 1, column 4: the tag 'tag:yaml.org,2002:python/object/apply:os.system' is not supported"),
        (b"a: !!binary aGk=\n", "line 1, column 4: the tag 'tag:yaml.org,2002:binary' is not supported"),
        (b"[a]: 1\n", "line 1, column 1: a key must be text"),
        (b"a: [\n", "line 2, column 1: expected the node content, but found '<stream end>'"),
        (b"a: 1\n---\nb: 2\n", "line 2, column 1: but found another document"),
        (b"a: " + b"[" * 100, "line 1, column 35: values lie in each other more than 32 deep"),
        (b"a: [" + b"1, " * 30_000 + b"1]", "line 1, column 59996: has more than 20,000 values"),
        (b"\x00", "is not YAML: unacceptable character #x0000: special characters are not allowed"),
    ],
)  # fmt: skip
def test_yaml_that_is_none_is_explained(content: bytes, expected: str) -> None:
    assert problems(load_files({"runagent.config.yaml": content})) == [f"runagent.config.yaml: {expected}"]


def test_json_with_comments_is_sent_to_yaml() -> None:
    assert hints(load_files({"runagent.config.json": "{\n  // the name\n"})) == [
        "JSON has no comments; a runagent.config.yaml may have them"
    ]


def test_a_manifest_that_would_not_fit_is_a_problem() -> None:
    entries = [{"file": "main.py", "module": "run", "tag": f"t{n}", "description": "d" * 1000} for n in range(100)]
    assert [text.partition(":")[2][:40] for text in problems(load({"agent_name": "x", "entrypoints": entries}))] == [
        " all that is configured takes 103,591 by"
    ]
