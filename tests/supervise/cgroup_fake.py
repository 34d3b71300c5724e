"""What a v2 kernel does with a cgroup directory, done to a plain one: enough of it for `supervise.cgroup`.

Not done: limits that act, and joining by a raw descriptor (a test says `files.write(…, "cgroup.procs", pid)` instead).
"""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

from runagentd.plan.facts import CgroupLayout, Hierarchy
from runagentd.supervise.cgroup_files import CgroupFiles

_OF_EVERY_GROUP = {
    "cgroup.procs": "",
    "cgroup.subtree_control": "",
    "cgroup.kill": "",
    "cgroup.events": "",
    "cgroup.freeze": "0\n",
    "cpu.stat": "usage_usec 0\n",
}
_BY_CONTROLLER = {
    "memory": {
        "memory.max": "max\n",
        "memory.high": "max\n",
        "memory.swap.max": "max\n",
        "memory.oom.group": "0\n",
        "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n",
        "memory.current": "0\n",
    },
    "pids": {"pids.max": "max\n", "pids.current": "0\n"},
    "cpu": {"cpu.max": "max 100000\n", "cpu.weight": "100\n"},
}


class FakeV2(CgroupFiles):
    """A cgroup2 file system on a directory; `own` is the daemon's own cgroup, delegated and not the root."""

    def __init__(self, root: Path, controllers: str = "cpu memory pids") -> None:
        self.root = root
        self.own = root / "own"
        self._lay(root, controllers)
        (root / "cgroup.subtree_control").write_text(controllers)
        parent = os.open(root, os.O_RDONLY)
        try:
            self.make(parent, "own")
        finally:
            os.close(parent)

    def layout(self) -> CgroupLayout:
        controllers = ("memory", "pids", "cpu")
        hierarchy = Hierarchy(version=2, controllers=controllers, mount=str(self.root), own=str(self.own))
        return CgroupLayout(hierarchies=(hierarchy,))

    def make(self, directory: int, name: str) -> None:
        super().make(directory, name)
        parent = self._path(directory)
        self._lay(parent / name, (parent / "cgroup.subtree_control").read_text())

    def remove(self, directory: int, name: str) -> None:
        path = self._path(directory) / name
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, name)
        if any(child.is_dir() for child in path.iterdir()) or self._living(path):
            raise OSError(errno.EBUSY, name)
        for child in path.iterdir():
            child.unlink()
        path.rmdir()

    def read(self, directory: int, name: str) -> str:
        path = self._path(directory) / name
        if path.name == "cgroup.events":
            path.stat()
            populated = any(self._living(folder) for folder in self._with_all_below(path.parent))
            return f"populated {int(populated)}\nfrozen 0\n"
        if path.name == "cgroup.procs":
            path.stat()
            return "".join(f"{pid}\n" for pid in self._living(path.parent))
        return super().read(directory, name)

    def write(self, directory: int, name: str, text: str) -> None:
        path = self._path(directory) / name
        group = path.parent
        match path.name:
            case "cgroup.procs":
                for other in self._with_all_below(self.root):
                    left = [pid for pid in self._living(other) if str(pid) != text]
                    (other / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in left))
                with path.open("a") as file:
                    file.write(f"{text}\n")
            case "cgroup.kill":
                for folder in self._with_all_below(group):
                    for pid in self._living(folder):
                        os.kill(pid, signal.SIGKILL)
            case "cgroup.subtree_control":
                if self._living(group) and group != self.root:
                    raise OSError(errno.EBUSY, "no internal processes")
                enabled = [word.removeprefix("+") for word in text.split()]
                if not set(enabled) <= set((group / "cgroup.controllers").read_text().split()):
                    raise OSError(errno.ENOENT, "no such controller")
                path.write_text(" ".join(enabled))
            case _:
                super().write(directory, name, text)

    def _lay(self, path: Path, controllers: str) -> None:
        files = dict(_OF_EVERY_GROUP, **{"cgroup.controllers": controllers})
        for controller in controllers.split():
            files.update(_BY_CONTROLLER[controller])
        for file, content in files.items():
            (path / file).write_text(content)

    def _path(self, directory: int) -> Path:
        return Path(os.readlink(f"/proc/self/fd/{directory}"))

    def _with_all_below(self, path: Path) -> list[Path]:
        return [Path(folder) for folder, _, _ in os.walk(path)]

    def _living(self, path: Path) -> list[int]:
        return [pid for pid in map(int, (path / "cgroup.procs").read_text().split()) if _lives(pid)]


def _lives(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")
