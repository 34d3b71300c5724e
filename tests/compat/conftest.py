"""One daemon and one RunAgent client for all tests of this folder; both end with the last of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from runagentd import signing
from tests.compat.runagent_client import RunAgent, runagent_client
from tests.system.daemon import ROOT, Daemon, serve

AGENT = ROOT / "tests/compat/agent"


@pytest.fixture(scope="package")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Serves the agent of this folder twice: as it is, and as `hasty`, whose calls end after one second."""
    place = tmp_path_factory.mktemp("compat")
    hasty = place / "hasty"
    hasty.mkdir()
    configuration = json.loads((AGENT / "runagent.config.json").read_text())
    configuration |= {"agent_name": "hasty", "agent_id": "compat-hasty"}
    (hasty / "runagent.config.json").write_text(json.dumps(configuration))
    (hasty / "main.py").write_bytes((AGENT / "main.py").read_bytes())
    policy = place / "hasty.toml"
    policy.write_text('version = 1\nextends = "base"\n[calls]\ndeadline = "1s"\n')
    with serve([AGENT, hasty], policies=[f"hasty={policy}"]) as served:
        yield served


@pytest.fixture(scope="package")
def runagent(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunAgent]:
    """PyPI's client, told of the daemon by the environment alone."""
    with runagent_client(daemon, tmp_path_factory.mktemp("runagent")) as client:
        yield client


Mint = Callable[..., str]


@pytest.fixture
def mint(daemon: Daemon) -> Mint:
    """Tokens for this daemon that live a minute: for some `agents` only, issued earlier, or signed with other keys."""

    def make(*, agents: Sequence[str] | None = None, issued_seconds_ago: int = 0, keys: Path | None = None) -> str:
        identity = (daemon.state_dir / "id").read_text().strip()
        return signing.mint(
            signing.create_or_open(str(keys or daemon.state_dir / "keys")),
            issuer=signing.issuer(identity),
            audience=signing.audience(identity),
            subject="compat",
            agents=agents,
            ttl_seconds=60,
            now=time.time() - issued_seconds_ago,
        )

    return make
