"""The table of system calls is read strictly, and cannot say what an upper half slips through."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from runagentd.errors import ConfigurationError
from runagentd.plan.syscalls import Alternative, Condition, Newest, parse, shipped_table

HEAD = """
version = 1
newest = { name = "file_setattr", number = 469, kernel = "6.17" }
[reaper]
calls = [{ name = "read", reason = "reads" }]
[builder]
calls = [{ name = "write", reason = "writes" }]
"""


def problems(body: str, head: str = HEAD) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse(head + body)
    return str(caught.value)


def filtered(condition: str) -> str:
    return f"""
[groups.sockets]
always = true
summary = "sockets"
[[groups.sockets.filtered]]
name = "socket"
reason = "one family"
allow = [{{ words = "AF_UNIX", reason = "inside", when = [{condition}] }}]
"""


def test_an_entry_becomes_a_value() -> None:
    table = parse(HEAD + filtered("{ argument = 0, equals = 1 }"))
    assert table.newest == Newest(name="file_setattr", number=469, kernel="6.17")
    (entry,) = table.groups[0].entries
    assert (entry.name, entry.group, entry.reason) == ("socket", "sockets", "one family")
    assert entry.alternatives == (
        Alternative(
            words="AF_UNIX",
            reason="inside",
            when=(Condition(argument=0, mask=0xFFFFFFFF_FFFFFFFF, value=1),),
        ),
    )


def test_a_mask_always_holds_the_upper_half() -> None:
    """It is written with 32 bits, so leaving out the upper half cannot be written at all."""
    table = parse(HEAD + filtered("{ argument = 0, mask = 0x7e020080, equals = 0 }"))
    assert table.groups[0].entries[0].alternatives[0].when[0].mask == 0xFFFFFFFF_7E020080
    assert "is not a mask of 32 bits" in problems(filtered("{ argument = 0, mask = 0x1ffffffff, equals = 0 }"))


@pytest.mark.parametrize("ordering", ["not_equals", "less_than", "greater_than", "at_least", "ne", "lt", "gt"])
def test_an_argument_can_only_be_compared_for_equality(ordering: str) -> None:
    text = problems(filtered(f"{{ argument = 0, {ordering} = 40 }}"))
    assert "an argument can only be compared for equality" in text
    assert "hint: a filter sees 64 bits where the kernel may read 32: write equals, alone or with a mask" in text


def test_a_condition_that_could_never_hold_is_a_mistake() -> None:
    assert "0x3 has bits outside its mask" in problems(filtered("{ argument = 0, mask = 1, equals = 3 }"))


def test_there_are_six_arguments() -> None:
    assert "6 is not an argument" in problems(filtered("{ argument = 6, equals = 1 }"))


def test_a_filtered_call_without_conditions_is_refused() -> None:
    """It would allow the call whatever its arguments are."""
    assert "an alternative needs at least one condition" in problems(filtered(""))
    body = filtered("").replace('allow = [{ words = "AF_UNIX", reason = "inside", when = [] }]', "allow = []")
    assert "a filtered call needs at least one alternative" in problems(body)


def group(line: str) -> str:
    return f'[groups.x]\nalways = true\nsummary = "x"\n{line}\n'


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('calls = [{ name = "read" }]', '"reason" is missing'),
        ('calls = [{ name = "read", reason = " " }]', "' ' is not a text"),
        ('calls = [{ name = "read", reason = "r", allow = [] }]', "groups.x.calls[0] (read).allow: unknown key"),
        ('calls = [{ name = "read", reason = "r", number = 0 }]', "0 cannot be given here"),
        ('calls = [{ name = "read", reason = "r", optional = 1 }]', "1 is neither true nor false"),
        ('refused = [{ name = "read", reason = "r" }]', '"errno" is missing'),
        ('refused = [{ name = "read", reason = "r", errno = "ENOPE" }]', "'ENOPE' is not the name of an errno"),
        ('calls = [{ name = "a", reason = "r" }, { name = "a", reason = "r" }]', '"a" stands here twice'),
        ('call = [{ name = "read", reason = "r" }]', "groups.x.call: unknown key"),
    ],
)
def test_a_mistake_is_named_with_its_place(line: str, expected: str) -> None:
    assert expected in problems(group(line))


def test_every_mistake_is_told_at_once() -> None:
    text = problems(group('calls = [{ name = "a" }, { name = "b" }]'))
    assert "groups.x.calls[0] (a)" in text
    assert "groups.x.calls[1] (b)" in text


def test_another_version_is_refused() -> None:
    assert "2 is not a version" in problems("", head=HEAD.replace("version = 1", "version = 2"))


def test_text_that_is_not_toml_is_refused() -> None:
    assert "syscalls.toml: not TOML" in problems("[", head="")


def test_no_policy_decides_about_the_reaper() -> None:
    head = HEAD.replace('reason = "reads"', 'reason = "reads", needs = "process.exec"')
    assert "no policy decides about the reaper" in problems("", head=head)


def test_no_policy_decides_about_the_builder() -> None:
    head = HEAD.replace('reason = "writes"', 'reason = "writes", needs = "process.exec"')
    assert "no policy decides about the builder" in problems("", head=head)


def test_the_shipped_table_has_the_groups_that_policies_may_name() -> None:
    table = shipped_table()
    always = {group.name for group in table.groups if group.always}
    assert always == {
        "rt", "ids", "memory", "fileio", "files", "events", "time", "signals", "process", "sockets",
    }  # fmt: skip
    assert table.selectable() == {"memfd", "landlock", "splice", "inotify", "sched", "mlock"}


def test_every_filtered_call_of_the_shipped_table_names_its_source() -> None:
    text = Path(__file__).parents[2].joinpath("policies/syscalls.toml").read_text()
    document = tomllib.loads(text)
    sections = [*document["groups"].values(), document["reaper"], document["builder"]]
    unsourced = [one["name"] for section in sections for one in section.get("filtered", []) if "source" not in one]
    assert unsourced == []
