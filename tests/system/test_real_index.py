"""Packages that everybody uses, from the index that this machine's own pip uses.

Without one that answers the test is skipped, which `make test` takes for a failure unless tests/skips.toml lists it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest

from runagentd.config import packages
from tests.system import daemon, folders

pytestmark = [pytest.mark.root, pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(300)]

_ASK = """
import json
from pip._internal.models.index import PyPI
print(json.dumps([PyPI.simple_url, [PyPI.file_storage_domain]]))
"""
SOURCE = """
    import numpy
    import six


    def run() -> list:
        return [numpy.__name__, float(numpy.arange(10.0).sum()), six.PY3]
"""


def usual_index() -> tuple[str, list[str]]:
    """Its address and the hosts of its files: what is configured here, or else what pip is shipped with."""
    for name in packages.VARIABLES:
        if os.environ.get(name):
            return os.environ[name], []
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True, check=False
    )
    if asked.returncode == 0:
        return asked.stdout.strip(), []
    told = subprocess.run([sys.executable, "-c", _ASK], capture_output=True, text=True, check=True)
    address, hosts = json.loads(told.stdout)
    return address, hosts


def test_a_pure_and_a_native_package_are_installed_and_work(tmp_path: Path) -> None:
    address, hosts = usual_index()
    parts = urllib.parse.urlsplit(address)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 443), timeout=10).close()
    except OSError as error:
        pytest.skip(f"no package index answers from this machine: {error}")
    configuration = tmp_path / "runagentd.toml"
    configuration.write_text(f"[packages]\nindex = {json.dumps(address)}\nhosts = {json.dumps(hosts)}\n")
    folder = folders.agent(tmp_path, "real", SOURCE, "run")
    (folder / "requirements.txt").write_text("numpy\nsix\n")
    with daemon.serve([folder], options=["--config", str(configuration)]) as served:
        assert served.call("real", "run") == (200, ["numpy", 45.0, True])
