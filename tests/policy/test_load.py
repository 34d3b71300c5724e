"""Files come together as docs/policy.md says, and every mistake in them is said plainly."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runagentd.errors import ConfigurationError
from runagentd.policy import files
from runagentd.policy.keys import KEYS, NOT_BUILT_KEYS, NOT_BUILT_TABLES
from runagentd.policy.load import Place, Unreadable, load
from runagentd.policy.model import HostFolder, Policy, Runtime
from tests.policy.texts import loaded, reader

BAD = Path(__file__).parents[1] / "bad-policies"
BAD_NAMES = sorted(path.name for path in BAD.glob("*.toml"))


def read_bad(place: Place) -> bytes:
    """Shipped policies as they are; files from the corpus, so that messages do not depend on where it lies."""
    if place.shipped is not None:
        return files.read(place)
    if not (BAD / place.path).is_file():
        raise Unreadable("no such file")
    return (BAD / place.path).read_bytes()


@pytest.mark.parametrize("name", BAD_NAMES)
def test_each_bad_policy_is_refused_with_the_words_at_its_top(name: str) -> None:
    """All of them, hints included, and nothing else."""
    lines = (BAD / name).read_text().splitlines()
    expected = [line.removeprefix("# expect: ") for line in lines if line.startswith("# expect: ")]
    with pytest.raises(ConfigurationError) as caught:
        load(f"./{name}", read_bad, known_groups={"memfd", "landlock"})
    assert str(caught.value) == "\n".join(expected)


def test_a_file_that_sets_nothing_gives_the_defaults() -> None:
    """And says so of each key."""
    policy = loaded("version = 1")
    assert policy.name == "web.toml"
    assert policy.resources.memory_max == 268435456
    assert policy.calls.deadline == 300000
    assert policy.files.runtime is Runtime.PYTHON
    assert policy.files.read == ()
    assert policy.origins == tuple((key.name, "default") for key in KEYS)


def test_a_key_wins_over_what_the_file_extends() -> None:
    """Key by key: the rest of the table stays the parent's."""
    parent = 'version = 1\n[resources]\nmemory_max = "1GiB"\npids_max = 128'
    policy = loaded('version = 1\nextends = "parent.toml"\n[resources]\npids_max = 32', parent=parent)
    assert (policy.resources.memory_max, policy.resources.pids_max) == (1073741824, 32)
    origins = dict(policy.origins)
    assert origins["resources.memory_max"] == "parent.toml"
    assert origins["resources.pids_max"] == "web.toml"
    assert origins["resources.cpu_max"] == "default"


def test_a_shipped_policy_is_extended_by_its_bare_name() -> None:
    """A bare word never is a file beside the policy."""
    texts = {
        "web.toml": 'version = 1\nextends = "tools"',
        "tools": "version = 1\n[process]\nnofile = 64",
        "policies/tools.toml": "version = 1\n[process]\nexec = true",
    }
    policy = load("./web.toml", reader(texts))
    assert policy.process.exec is True
    assert dict(policy.origins)["process.exec"] == "policies/tools.toml"


def test_a_path_in_a_policy_is_relative_to_that_policy() -> None:
    """And not to the folder that the command was started in."""
    texts = {
        "/etc/agents/web.toml": 'version = 1\nextends = "shared/parent.toml"',
        "/etc/agents/shared/parent.toml": 'version = 1\ninclude = ["hosts.toml"]\n[process]\nexec = true',
        "/etc/agents/shared/hosts.toml": 'version = 1\n[network]\nmode = "none"',
    }
    policy = load("/etc/agents/web.toml", reader(texts))
    assert policy.process.exec is True
    assert dict(policy.origins)["network.mode"] == "/etc/agents/shared/hosts.toml"


def test_the_file_itself_wins_over_what_it_includes() -> None:
    """Included files come after what is extended and before the file's own keys."""
    network = 'version = 1\n[network]\nmode = "none"'
    included = loaded(
        'version = 1\nextends = "parent.toml"\ninclude = ["one.toml", "two.toml"]',
        parent=network,
        one=network,
        two=network,
    )
    own = loaded(f'version = 1\ninclude = ["one.toml"]\n{network.removeprefix("version = 1")}', one=network)
    assert dict(included.origins)["network.mode"] == "two.toml"
    assert dict(own.origins)["network.mode"] == "web.toml"


def test_a_list_replaces_the_one_before_it() -> None:
    """What a policy lists is all that it grants."""
    parent = 'version = 1\n[files]\nread = ["/srv/words"]'
    policy = loaded('version = 1\nextends = "parent.toml"\n[files]\nread = ["/srv/models"]', parent=parent)
    assert policy.files.read == (HostFolder(path="/srv/models", optional=False),)
    assert dict(policy.origins)["files.read"] == "web.toml"


def test_a_list_with_add_comes_after_the_one_before_it() -> None:
    """And each entry keeps the file that listed it."""
    parent = 'version = 1\n[files]\nread = ["/srv/words", "/srv/faces"]'
    child = (
        'version = 1\nextends = "parent.toml"\n[files]\nread = { add = [{ path = "/srv/models", optional = true }] }'
    )
    policy = loaded(child, parent=parent)
    assert policy.files.read == (
        HostFolder(path="/srv/words", optional=False),
        HostFolder(path="/srv/faces", optional=False),
        HostFolder(path="/srv/models", optional=True),
    )
    origins = dict(policy.origins)
    assert origins["files.read"] == "parent.toml, web.toml"
    assert [origins[f"files.read[{number}]"] for number in range(3)] == ["parent.toml", "parent.toml", "web.toml"]


def test_add_replaces_an_entry_of_the_same_path() -> None:
    """The nearer file decides whether it is optional."""
    parent = 'version = 1\n[files]\nread = ["/srv/words", "/srv/faces"]'
    child = 'version = 1\nextends = "parent.toml"\n[files]\nread.add = [{ path = "/srv/words", optional = true }]'
    assert loaded(child, parent=parent).files.read == (
        HostFolder(path="/srv/faces", optional=False),
        HostFolder(path="/srv/words", optional=True),
    )


def test_add_without_a_list_before_it_adds_to_the_default() -> None:
    """Which is empty."""
    policy = loaded('version = 1\n[syscalls]\ngroups = { add = ["memfd"] }')
    assert policy.syscalls.groups == ("memfd",)
    assert dict(policy.origins)["syscalls.groups"] == "web.toml"


def test_a_list_can_be_emptied() -> None:
    """An empty list grants nothing, whatever the parent did."""
    parent = 'version = 1\n[syscalls]\ngroups = ["memfd"]'
    assert loaded('version = 1\nextends = "parent.toml"\n[syscalls]\ngroups = []', parent=parent).syscalls.groups == ()


def test_problems_of_several_files_are_reported_together() -> None:
    """One round of corrections, not five."""
    with pytest.raises(ConfigurationError) as caught:
        loaded(
            'version = 1\nextends = "parent.toml"\ninclude = ["hosts.toml", "absent.toml"]\n[calls]\nqueue = -1',
            parent="version = 1\n[process]\nexec = 1",
            hosts='version = 1\n[network]\nallow = ["example.org"]',
        )
    assert [problem.where for problem in caught.value.problems] == [
        "web.toml: calls.queue",
        "parent.toml: process.exec",
        "hosts.toml: network.allow",
        "web.toml: include[1]",
    ]


@pytest.mark.parametrize("name", [*NOT_BUILT_KEYS, *(f"{table}.anything" for table in NOT_BUILT_TABLES)])
def test_a_key_that_is_not_built_yet_is_refused_by_its_name(name: str) -> None:
    """It is never ignored: somebody who wrote it counts on it."""
    table, _, key = name.partition(".")
    with pytest.raises(ConfigurationError) as caught:
        loaded(f"version = 1\n[{table}]\n{key} = 1")
    assert [(problem.where, problem.what) for problem in caught.value.problems] == [
        (f"web.toml: {name}", "not built yet")
    ]


@pytest.mark.parametrize("spec", ["", "a\nb", "x" * 5000, "nul\0"])
def test_what_cannot_name_a_policy_is_refused(spec: str) -> None:
    """Before anything is opened."""
    with pytest.raises(ConfigurationError, match="not the name of a policy"):
        load(spec, reader({}))


def outcome(data: bytes) -> Policy | ConfigurationError:
    """What a policy of these bytes, which may name itself, comes to."""
    try:
        return load("./web.toml", lambda place: data)
    except ConfigurationError as error:
        return error


def test_a_file_of_mistakes_only_is_answered_briefly() -> None:
    """The first fifty, and how many more there are."""
    result = outcome(b"version = 1\n" + b"\n".join(b"k%d = 1" % number for number in range(60)))
    assert isinstance(result, ConfigurationError)
    assert len(result.problems) == 51
    assert str(result.problems[-1]) == "web.toml: 10 more problems"


def test_a_key_of_thousands_of_parts_is_refused_before_it_is_parsed() -> None:
    """Parsing it would keep the supervisor for half a minute."""
    result = outcome(b"version = 1\n" + b"a." * 32000 + b"b = 1")
    assert isinstance(result, ConfigurationError)
    assert str(result) == "web.toml: line 2: more than 200 dots\nhint: break the list into lines"


@given(st.binary(max_size=400))
@example(b"\xef\xbb\xbfversion = 1")
@example(b"version = 1\nx = " + b"9" * 5000)
@example(b"x = " + b"[" * 20000)
@example(b"version = 1\n" + b"a." * 200 + b"b = 1")
@example(b"version = 1\ncalls.queue = " + b"9" * 4000)
@example(b"version = 1\nresources.cpu_max = " + b"9" * 400)
@example(b"version = 1\nresources.cpu_max = inf")
@example(b"version = 2024-02-30")
@example(b"version = 1\r[calls]")
def test_any_bytes_are_a_policy_or_a_configuration_error(data: bytes) -> None:
    """Never another exception, and always at least one problem."""
    result = outcome(data)
    if isinstance(result, ConfigurationError):
        assert result.problems


TOML_VALUES = st.recursive(
    st.one_of(
        st.booleans().map(lambda value: str(value).lower()),
        st.integers().map(str),
        st.floats().map(repr),
        st.text(max_size=8).map(lambda text: '"' + "".join(f"\\U{ord(c):08X}" for c in text) + '"'),
        st.sampled_from(['"64MiB"', '"10s"', '"/srv/a"', '"./web.toml"', '"base"', "1979-05-27", "07:32:00"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: f"[{', '.join(parts)}]"),
        st.dictionaries(st.sampled_from(["add", "path", "optional", "x"]), inner, max_size=3).map(
            lambda table: f"{{{', '.join(f'{key} = {value}' for key, value in table.items())}}}"
        ),
    ),
    max_leaves=6,
)
KEY_NAMES = [
    *(key.name for key in KEYS),
    *NOT_BUILT_KEYS,
    "secrets.x",
    "extends",
    "include",
    "calls.zzz",
    '"\\u0007".a',
]


@given(st.dictionaries(st.sampled_from(KEY_NAMES), TOML_VALUES, max_size=6))
def test_any_value_of_any_key_is_taken_or_refused(settings: dict[str, str]) -> None:
    """With a message that is safe to print on a terminal."""
    text = "version = 1\n" + "\n".join(f"{key} = {value}" for key, value in settings.items())
    result = outcome(text.encode("utf-8", "replace"))
    if isinstance(result, ConfigurationError):
        assert result.problems
        assert re.search(r"[\x00-\x09\x0b-\x1f\x7f]", str(result)) is None
