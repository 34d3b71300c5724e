"""What holds for every test: who may run it, and that nothing is skipped unseen.

Markers: `root` needs uid 0, `kernel` needs a feature of the running kernel, `slow` takes more than 0.1 s.
A person without root may run the rest: tests that need it are skipped and say so. With RUNAGENTD_MUST_RUN=1
(`make test`) every skip and every xfail that tests/skips.toml does not list with its reason fails the session.
`make test` runs as root: a test of a refused permission has to become another uid first.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from tests.skips import SkipJudge, parse

# Two processors shared with real sandboxes: a slow example says nothing about the code, and a database of
# examples would be state that a clean checkout does not have.
settings.register_profile("runagentd", deadline=None, database=None, derandomize=os.environ.get("CI") == "true")
settings.load_profile("runagentd")


def pytest_configure(config: pytest.Config) -> None:
    # A shell that starts a job in the background has it ignore SIGINT, and so would every daemon and command that a
    # test starts and then interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.environ.get("RUNAGENTD_MUST_RUN") == "1":
        listed = Path(os.environ.get("RUNAGENTD_SKIPS") or Path(__file__).with_name("skips.toml"))
        config.pluginmanager.register(SkipJudge(parse(listed.read_text())), "runagentd-skips")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root") is not None:
            item.add_marker(pytest.mark.skip(reason="needs root"))
