"""runagentd.toml under a real daemon: taken at the start, read again at SIGHUP, and a wrong one changes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from runagentd import signing
from runagentd.state import open_existing
from tests.system.daemon import ROOT, Daemon, serve
from tests.system.folders import agent

SOURCE = """
    def balance(name: str) -> int:
        return 7

    def pay(name: str) -> str:
        return "paid"
"""


def token_with(daemon: Daemon, *scopes: str) -> str:
    """A token of the daemon's that grants these scopes alone."""
    directory = open_existing(daemon.state_dir)
    return signing.mint(
        signing.create_or_open(str(directory.keys)),
        issuer=directory.issuer,
        audience=directory.audience,
        subject="clerk",
        agents=[],
        ttl_seconds=60,
        scopes=scopes,
    )


def invoke(daemon: Daemon, token: str, tag: str) -> int:
    status, _ = daemon.request("POST", f"/v1/agents/bank/entrypoints/{tag}:invoke", body={"name": "a"}, token=token)
    return status


def test_roles_decide_what_a_token_may_call_and_can_be_changed_without_a_restart(tmp_path: Path) -> None:
    """What is denied looks exactly as if it was not there."""
    bank = agent(tmp_path, "bank", SOURCE, "balance", "pay")
    config = tmp_path / "runagentd.toml"
    config.write_text('[roles.clerk]\nallow = ["agents:invoke:bank/*"]\ndeny = ["agents:invoke:bank/pay"]\n')
    with serve([bank], options=["--config", str(config)]) as daemon:
        token = token_with(daemon, "role:clerk")
        assert [invoke(daemon, token, tag) for tag in ("balance", "pay")] == [200, 404]
        assert daemon.request("GET", "/v1/agents/bank", token=token)[1]["tags"] == ["balance"]
        missing = daemon.request("POST", "/v1/agents/bank/entrypoints/none:invoke", body={}, token=token)[1]
        denied = daemon.request("POST", "/v1/agents/bank/entrypoints/pay:invoke", body={}, token=token)[1]
        for answer in (missing, denied):
            del answer["request_id"], answer["instance"]
        assert str(missing).replace("'none'", "'pay'") == str(denied)

        config.write_text("[roles.clerk]\nallow = 1\n")
        os.kill(daemon.process.pid, signal.SIGHUP)
        daemon.wait_for_log("the configuration was not taken over")
        assert invoke(daemon, token, "balance") == 200

        config.write_text("")
        os.kill(daemon.process.pid, signal.SIGHUP)
        daemon.wait_for_log("the settings have changed")
        assert invoke(daemon, token, "balance") == 404


def test_a_scope_to_look_does_not_allow_a_call(tmp_path: Path) -> None:
    """403 and not 404: the caller may know that the agent is there."""
    with serve([agent(tmp_path, "bank", SOURCE, "balance")]) as daemon:
        token = token_with(daemon, "agents:read")
        assert daemon.request("GET", "/v1/agents/bank", token=token)[0] == 200
        status, answer = daemon.request("POST", "/v1/agents/bank/entrypoints/balance:invoke", body={}, token=token)
        assert (status, answer["code"]) == (403, "PERMISSION_ERROR")
        assert answer["detail"] == "this token may look at agent 'bank' and not call it"


def test_a_wrong_file_is_told_with_every_problem_and_nothing_starts(tmp_path: Path) -> None:
    """Exit status 2, as for a wrong command line."""
    config = tmp_path / "runagentd.toml"
    config.write_text("rolls = 1\n[roles.a]\nallow = 1\n")
    found = subprocess.run(
        [
            *(sys.executable, "-m", "runagentd.cli.runagentd", "serve", str(tmp_path)),
            *("--state-dir", str(tmp_path / "state"), "--port", "0", "--config", str(config)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == (
        "runagentd: runagentd.toml: roles.a.allow: must be an array of texts\n"
        "runagentd.toml: rolls: there is no such key\n"
        "hint: did you mean 'roles'?\n"
    )
