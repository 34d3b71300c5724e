"""`python -m tests.deploys.second`: what another deploy of the same requirements takes, beside the first; root.

A real daemon and the real command, from a folder of wheels that are made here: 40 packages, 4,000 modules. The first
deploy installs them; another version of the agent, and another agent with the same file, find them. Exit status 1 where
anything was installed twice, or where a second deploy took a second or more.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from runagentd import state
from tests.packages import made
from tests.system.ctl import run
from tests.system.daemon import serve
from tests.system.folders import agent

PACKAGES, MODULES, TIMES = 40, 100, 10
SOURCE = "import p0.m0\n\nWORD = {word!r}\n\n\ndef say() -> str:\n    return WORD\n"


def _deploy(folder: Path, state_dir: Path) -> float:
    """Seconds, the command's own start among them."""
    began = time.monotonic()
    status, out, err = run("deploy", folder, state=state_dir)
    if status != 0:
        raise SystemExit(out + err)
    return time.monotonic() - began


def main() -> int:
    """One run."""
    with tempfile.TemporaryDirectory(prefix="runagentd-second-", dir=state.SCRATCH) as name:
        place = Path(name)
        place.chmod(0o755)
        (place / "wheels").mkdir()
        for number in range(PACKAGES):
            files = {f"p{number}/m{each}.py": f"X = {each}\n" for each in range(MODULES)}
            made.wheel(place / "wheels", f"p{number}", "1.0", files)
        requirements = "".join(f"p{number}\n" for number in range(PACKAGES))
        (place / "runagentd.toml").write_text(f'[packages]\nwheels = "{place / "wheels"}"\n')
        folder = agent(place, "chat", SOURCE.format(word="word"), "say")
        (folder / "requirements.txt").write_text(requirements)
        options = ["--config", str(place / "runagentd.toml")]
        with serve([], state_dir=place / "state", options=options) as daemon:
            first = _deploy(folder, daemon.state_dir)
            versions, others = [], []
            for number in range(TIMES):
                (folder / "agent.py").write_text(SOURCE.format(word=f"word{number}"))
                versions.append(_deploy(folder, daemon.state_dir))
                other = agent(place, f"other{number}", SOURCE.format(word="word"), "say")
                (other / "requirements.txt").write_text(requirements)
                others.append(_deploy(other, daemon.state_dir))
            built = daemon.log.read_text().count("an environment was built")
    print(f"the first deploy, {PACKAGES} packages installed   {first:.2f} s")
    for what, took in (("another version of the agent", versions), ("another agent", others)):
        print(f"{what:<45} {sorted(took)[TIMES // 2]:.2f} s at the median of {TIMES}, {max(took):.2f} s at most")
    print(f"{'environments built':<45} {built}")
    print(f"{'processes that wanted to run, of the last minute':<45} {os.getloadavg()[0]:.1f}")
    return 0 if built == 1 and max(*versions, *others) < 1 else 1


if __name__ == "__main__":
    sys.exit(main())
