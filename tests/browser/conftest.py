"""A real daemon, and pages of it in Debian's Chromium: `make browser` runs this folder, `make test` does not enter it.

Playwright drives the browser; it is in .venv-browser only, and downloads none of its own.
Whatever a page asks for, logs or refuses is on its record, and a test that opened it ends with a look at all of that.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Request, sync_playwright

from runagentd import signing, state
from tests.browser.chromium import CHROMIUM, OPTIONS
from tests.system.daemon import ROOT, Daemon, serve

AGENT = ROOT / "tests/browser/agent"
SHOTS = ROOT / "build/browser"
CONFIG = """
[limits]
loopback = true
[limits.principal]
rate = "50/s"
burst = 100
concurrency = 4
[limits.principal.for."eager"]
rate = "1/m"
[limits.tag.for."clerk/quote"]
rate = "600/m"
daily = 10000
"""

_LOGGED = "the server responded with a status of {}"
_CUT = "net::ERR_INCOMPLETE_CHUNKED_ENCODING"
_WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(`${event.violatedDirective} ${event.blockedURI}`);
});
"""


@dataclass
class Seen:
    """What a page has done that a reader would not see."""

    requests: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        def request(asked: Request) -> None:
            self.requests.append(asked.url)

        def console(message: ConsoleMessage) -> None:
            self.console.append(f"{message.type}: {message.text}")

        def dialog(opened: Dialog) -> None:
            self.dialogs.append(opened.message)
            opened.dismiss()

        page.on("request", request)
        page.on("console", console)
        page.on("dialog", dialog)
        page.on("pageerror", lambda error: self.errors.append(str(error)))


@pytest.fixture(scope="package")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Serves the agent of this folder, the examples' data agent, and one of a long name that is not started."""
    place = tmp_path_factory.mktemp("browser")
    config = place / "runagentd.toml"
    config.write_text(CONFIG)
    long = place / "long"
    long.mkdir()
    (long / "run.py").write_text("def go(x: int) -> int:\n    return x\n")
    tag = "a-tag-that-was-written-by-somebody-who-does-not-like-spaces-" * 2
    entry = {"file": "run.py", "module": "go", "tag": tag}
    name = "agent" * 12
    (long / "runagent.config.json").write_text(
        json.dumps({"agent_name": name, "agent_architecture": {"entrypoints": [entry]}})
    )
    with serve([AGENT, ROOT / "examples/data", long], options=["--config", str(config)]) as served:
        for agent in served.agents:
            served.wait_until_ready(agent["id"])
        yield served


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """With a profile that is empty and goes with it."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        yield launched
        launched.close()


@pytest.fixture(scope="package")
def shots() -> Path:
    """Where pictures of the pages go, for people to look at."""
    shutil.rmtree(SHOTS, ignore_errors=True)
    SHOTS.mkdir(parents=True)
    return SHOTS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if SHOTS.is_dir():
        terminalreporter.write_line(f"{len(list(SHOTS.glob('*.png')))} pictures to look at are in {SHOTS}")


Open = Callable[..., Page]


@pytest.fixture
def docs(browser: Browser, daemon: Daemon) -> Iterator[Open]:
    """Opens /docs; afterwards looks at all that the page has asked for, said and been refused."""
    with contextlib.ExitStack() as stack:
        opened: list[tuple[Page, Seen, tuple[int, ...]]] = []

        def open_docs(
            *,
            width: int = 1280,
            height: int = 900,
            dark: bool = False,
            touch: bool = False,
            refused: tuple[int, ...] = (),
        ) -> Page:
            """`refused`: statuses of answers that the test provokes, 0 for one that is cut: Chromium logs each."""
            context = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", has_touch=touch
            )
            stack.callback(context.close)
            context.add_init_script(_WATCH)
            page = context.new_page()
            page.set_default_timeout(10_000)
            seen = Seen()
            seen.watch(page)
            opened.append((page, seen, refused))
            page.goto(f"{daemon.url}/docs")
            return page

        yield open_docs
        for page, seen, refused in opened:
            expected = tuple(f"error: Failed to load resource: {_LOGGED.format(n) if n else _CUT}" for n in refused)
            assert [line for line in seen.console if not line.startswith(expected)] == []
            assert seen.dialogs == []
            assert seen.errors == []
            assert page.evaluate("window.violations") == []
            assert [url for url in seen.requests if not url.startswith((f"{daemon.url}/", "data:,"))] == []


@pytest.fixture
def signed_in(docs: Open, daemon: Daemon) -> Open:
    """Opens /docs and shows the daemon's token."""

    def open_signed_in(**options: object) -> Page:
        page = docs(**options)
        sign_in(page, daemon.token)
        page.get_by_role("heading", name="clerk", exact=True).wait_for()
        return page

    return open_signed_in


def sign_in(page: Page, token: str) -> None:
    page.get_by_label("Token or API key").fill(token)
    page.get_by_role("button", name="Show").click()


def mint(daemon: Daemon, subject: str, agents: list[str] | None = None) -> str:
    directory = state.open_existing(daemon.state_dir)
    return signing.mint(
        signing.create_or_open(str(directory.keys)), issuer=directory.issuer, audience=directory.audience,
        subject=subject, agents=agents, ttl_seconds=600,
    )  # fmt: skip
