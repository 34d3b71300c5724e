"""A Debian 12 host as a value: the same everywhere, so that the golden texts are, too."""

from __future__ import annotations

from runagentd.plan.facts import CgroupLayout, Hierarchy, HostFacts

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
    interpreter="/usr/bin/python3.11",
    python_version=(3, 11),
    runtime_paths=("/usr/bin/python3.11", "/usr/lib/python3.11", "/usr/lib/x86_64-linux-gnu", "/usr/share/zoneinfo"),
    runtime_links=(("/lib", "usr/lib"), ("/lib64", "usr/lib64")),
)
