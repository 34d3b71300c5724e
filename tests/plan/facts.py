"""A Debian 12 host as a value: the same everywhere, so that the golden texts are, too."""

from __future__ import annotations

from runagentd.plan.facts import CgroupLayout, Hierarchy, HostFacts
from runagentd.wire.runtime import PythonRuntime, RuntimeLink

DEBIAN = HostFacts(
    release=(6, 1, 0),
    machine="x86_64",
    last_capability=40,
    landlock_abi=2,
    seccomp_actions=("kill_process", "kill_thread", "trap", "errno", "user_notif", "trace", "log", "allow"),
    overlay=True,
    user_namespaces=True,
    idmapped_mounts=True,
    yama_ptrace_scope=0,
    libseccomp=(2, 5, 4),
    cgroups=CgroupLayout(
        hierarchies=(
            Hierarchy(version=2, controllers=("memory", "cpu", "pids"), mount="/sys/fs/cgroup", own="/sys/fs/cgroup"),
        )
    ),
    cgroup_problem="",
    python=PythonRuntime(
        version="3.11",
        release="3.11.2",
        build="3.11.2 (main, Apr 28 2025, 14:11:48) [GCC 12.2.0]",
        abi="cpython-311 3.11.2 x86_64 glibc-2.36",
        prefix="/usr",
        interpreter="/usr/bin/python3.11",
        paths=("/usr/bin/python3.11", "/usr/lib/python3.11", "/usr/lib/x86_64-linux-gnu", "/usr/share/zoneinfo"),
        links=(RuntimeLink(path="/lib", target="usr/lib"), RuntimeLink(path="/lib64", target="usr/lib64")),
    ),
)
