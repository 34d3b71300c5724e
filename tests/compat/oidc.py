"""The certified `oidc-provider` and a real daemon, where there are node and npm: `python -m tests.compat.oidc`.

Runs as: root, by `make compat`. Not part of `make test`: it takes packages from npm's registry.
Their lock would hold the registry's name, so the tree has none; the provider's version is in its package.json.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import urllib.parse
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

from tests import certificates
from tests.system.daemon import ROOT, Daemon, serve
from tests.system.folders import agent

SOURCE = ROOT / "tests/compat/oidc_provider"
BUILD = ROOT / ".venv-compat/oidc"
SECRET = "a secret of the test's"

CONFIGURATION = """
[issuers.corp]
issuer = "{url}"
audience = ["runagentd"]
ca = "{ca}"
[[issuers.corp.grants]]
claim = "scope"
value = "chat"
scopes = ["agents:invoke:greeter/*"]
"""


def installed() -> None:
    """The packages, in a folder that `make clean` removes. No script of theirs runs."""
    shutil.copytree(SOURCE, BUILD, dirs_exist_ok=True)
    command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
    subprocess.run(command, cwd=BUILD, check=True, timeout=300)


@contextlib.contextmanager
def provider(folder: Path, port: int) -> Iterator[None]:
    """Runs until the block ends, each time with new keys."""
    command = ["node", "provider.mjs", str(folder), str(port)]
    process = subprocess.Popen(command, cwd=BUILD, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        lines = process.stdout if process.stdout is not None else iter(())
        if not any(line == "listening\n" for line in lines):
            raise RuntimeError("the provider did not start")
        yield
    finally:
        process.kill()
        process.communicate()


def token(folder: Path, port: int, resource: str, scope: str = "chat") -> str:
    """By the grant for clients (RFC 6749, section 4.4), for one resource (RFC 8707)."""
    context = ssl.create_default_context(cafile=str(folder / "certificate.pem"))
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=context)
    form = {"grant_type": "client_credentials", "resource": resource, **({"scope": scope} if scope else {})}
    basic = b64encode(f"shop:{urllib.parse.quote(SECRET, safe='')}".encode()).decode()
    fields = {"Authorization": f"Basic {basic}", "Content-Type": "application/x-www-form-urlencoded"}
    try:
        connection.request("POST", "/token", urllib.parse.urlencode(form), fields)
        answer = json.loads(connection.getresponse().read())
        return str(answer["access_token"])
    finally:
        connection.close()


def call(daemon: Daemon, text: str) -> tuple[int, str]:
    """The status, and what the answer says."""
    path = "/v1/agents/greeter/entrypoints/hello:invoke"
    status, answer = daemon.request("POST", path, body={}, token=text)
    return status, str(answer.get("detail", "")) if isinstance(answer, dict) else str(answer)


def failures(place: Path) -> list[str]:
    """What went another way than expected, printing each look."""
    found = []
    certificates.write(place)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = place / "runagentd.toml"
    config.write_text(CONFIGURATION.format(url=f"https://127.0.0.1:{port}", ca=place / "certificate.pem"))

    def expect(what: str, got: object, expected: object) -> None:
        print(f"{'ok  ' if got == expected else 'NOT '} {what}")
        if got != expected:
            found.append(f"{what}\n  expected {expected}\n  not      {got}")

    greeter = agent(place, "greeter", "def hello() -> str:\n    return 'hi'\n", "hello")
    with contextlib.ExitStack() as first:
        first.enter_context(provider(place, port))
        with serve([greeter], options=["--config", str(config)]) as daemon:
            daemon.wait_for_log("the keys of an issuer")
            for algorithm in ("ES256", "RS256", "EdDSA"):
                good = token(place, port, f"urn:test:runagentd:{algorithm}")
                expect(f"a call with a token signed with {algorithm}", call(daemon, good)[0], 200)
            me = daemon.request("GET", "/v1/me", token=good)[1]
            expect("who it is", me["subject"], "corp:shop")
            elsewhere = token(place, port, "urn:test:elsewhere:ES256")
            refused = (401, "the token is meant for another installation")
            expect("a token for another service", call(daemon, elsewhere), refused)
            without = token(place, port, "urn:test:runagentd:ES256", scope="")
            expect("a token without the scope", call(daemon, without)[0], 404)
            first.close()
            expect("a call while the provider is down", call(daemon, good)[0], 200)
            with provider(place, port):
                new = token(place, port, "urn:test:runagentd:ES256")
                expect("a token of a new key", call(daemon, new)[0], 200)
                gone = (401, "the token names a key that is not known here")
                expect("a token of a key that is gone", call(daemon, good), gone)
    return found


def main() -> int:
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    if missing:
        print(f"{' and '.join(missing)} missing: the certified OpenID Connect provider is not tried")
        return 0
    try:
        installed()
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        print("the certified OpenID Connect provider cannot be installed here; it is not tried")
        return 1
    with tempfile.TemporaryDirectory(prefix="runagentd-oidc-") as folder:
        found = failures(Path(folder))
    print("\n".join(found) if found else "the daemon and the certified OpenID Connect provider understand each other")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
