"""Which runtime an agent gets, and in what words it gets none."""

from __future__ import annotations

import dataclasses

import pytest

from runagentd.errors import ConfigurationError
from runagentd.supervise.runtimes import Runtimes
from tests.plan.facts import DEBIAN

OWN = DEBIAN.python
NEWER = dataclasses.replace(OWN, version="3.13", release="3.13.1", interpreter="/opt/python3.13/bin/python3.13")
SAME = dataclasses.replace(OWN, release="3.11.9", interpreter="/opt/python3.11/bin/python3.11")


def test_who_asks_for_nothing_gets_the_daemons_own() -> None:
    """Whatever the operator has named."""
    runtimes = Runtimes(OWN)
    runtimes.configure([NEWER, SAME])
    assert runtimes.choose("") == OWN


def test_who_asks_gets_what_the_operator_has_named() -> None:
    """Before the daemon's own of the same version, too."""
    runtimes = Runtimes(OWN)
    assert runtimes.choose("3.11") == OWN
    runtimes.configure([NEWER, SAME])
    assert (runtimes.choose("3.13"), runtimes.choose("3.11")) == (NEWER, SAME)


def test_what_is_named_no_more_is_not_there() -> None:
    runtimes = Runtimes(OWN)
    runtimes.configure([NEWER])
    runtimes.configure([])
    with pytest.raises(ConfigurationError):
        runtimes.choose("3.13")


def test_what_is_not_there_is_refused_with_what_is_and_what_to_write() -> None:
    runtimes = Runtimes(OWN)
    with pytest.raises(ConfigurationError) as alone:
        runtimes.choose("3.14")
    assert alone.value.problems[0].what == "it asks for Python 3.14, and there is 3.11 only"
    runtimes.configure([NEWER])
    with pytest.raises(ConfigurationError) as refused:
        runtimes.choose("3.14")
    assert str(refused.value) == (
        "it asks for Python 3.14, and there is 3.11, 3.13\n"
        'hint: name one in the daemon\'s configuration: [runtimes] "3.14" = "/path/to/python3.14"\n'
        'hint: or ask for another one: "python" in runagent.config.json, or .python-version'
    )


def test_a_version_gets_what_an_update_has_put_in_the_place_of_its_runtime() -> None:
    """And keeps it where another path is named, or none, for it is still there."""
    runtimes = Runtimes(OWN)
    updated = dataclasses.replace(NEWER, release="3.13.2")
    runtimes.configure([updated])
    assert runtimes.renewed(NEWER) == updated
    runtimes.configure([dataclasses.replace(updated, interpreter="/opt/python3.13.2/bin/python3.13")])
    assert runtimes.renewed(NEWER) == NEWER
    runtimes.configure([])
    assert runtimes.renewed(NEWER) == NEWER


def test_the_daemons_own_is_never_renewed() -> None:
    """What is in its place meanwhile is not what the daemon itself runs on."""
    runtimes = Runtimes(OWN)
    runtimes.configure([dataclasses.replace(OWN, release="3.11.3")])
    assert runtimes.renewed(OWN) == OWN


def test_only_what_is_not_the_daemons_own_is_shown() -> None:
    assert (Runtimes(OWN).shown(OWN), Runtimes(OWN).shown(NEWER), Runtimes(OWN).shown(SAME)) == ("", "3.13.1", "3.11.9")
