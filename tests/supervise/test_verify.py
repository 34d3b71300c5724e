"""The look from outside: what of /proc/PID must be as planned before any agent code runs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from runagentd.plan.model import Expectation
from runagentd.supervise import verify
from runagentd.supervise.verify import _limit_differences, _mount_differences, _status_differences

MOUNTINFO = """\
100 66 0:49 / / ro,nosuid,nodev,noexec,relatime - tmpfs root ro,size=1024k
81 100 254:0 /usr/lib /usr/lib ro,nosuid,nodev,relatime - ext4 /dev/vda rw
"""
EXPECTED = (("/", "ro,nosuid,nodev,noexec"), ("/usr/lib", "ro,nosuid,nodev"))


def test_mounts_as_planned_are_fine() -> None:
    """More options than planned, such as relatime, are none of our business."""
    assert _mount_differences(MOUNTINFO, EXPECTED) == []


def test_a_mount_too_many_a_missing_one_and_a_double_one_are_found() -> None:
    """The set of mounts is exactly the plan's."""
    extra = MOUNTINFO + "82 100 254:0 / /host ro,nosuid,nodev - ext4 /dev/vda rw\n"
    assert _mount_differences(extra, EXPECTED) == ["the mounts are not those of the plan: /host"]
    assert "the mounts are not those of the plan: /usr/lib" in _mount_differences(MOUNTINFO.splitlines()[0], EXPECTED)
    double = MOUNTINFO + MOUNTINFO.splitlines()[1] + "\n"
    assert _mount_differences(double, EXPECTED) == ["the mounts are not those of the plan: one is there twice"]


def test_a_writable_mount_that_should_not_be_is_found() -> None:
    """Each option of the plan must be there."""
    loose = MOUNTINFO.replace("/usr/lib ro,nosuid,nodev", "/usr/lib rw,nosuid,nodev")
    assert _mount_differences(loose, EXPECTED) == ["the mount at /usr/lib lacks ro"]


def test_a_mount_that_propagates_is_found() -> None:
    """A shared mount would let a later host mount appear inside."""
    shared = MOUNTINFO.replace("relatime - ext4", "relatime shared:1 - ext4")
    assert _mount_differences(shared, EXPECTED) == ["the mount at /usr/lib propagates"]


def test_a_capability_that_was_left_is_found() -> None:
    """Every field of the plan is compared literally."""
    expected = (("CapEff", "0" * 16), ("NoNewPrivs", "1"))
    status = {"CapEff": "0000000000000001", "NoNewPrivs": "1"}
    assert _status_differences("the runner", status, expected) == [
        "CapEff of the runner is '0000000000000001', expected '0000000000000000'"
    ]


def test_a_process_that_is_not_in_a_namespace_of_its_own_is_found() -> None:
    """This very process is no runner."""
    nothing = Expectation(status=(), mounts=(), limits=(), command=())
    ours = verify.namespaces(os.getpid())
    found = verify.differences(
        os.getpid(),
        os.getppid(),
        nothing,
        apart_from=ours,
        reapers_namespaces=frozenset({"net:[1]"}),
        zygotes_layout="1",
        in_cgroups=lambda pid: pid != os.getpid(),
    )
    assert "its namespaces are not those of its reaper" in found
    assert "it is not in its cgroups" in found
    assert "it is not pid 2 of a pid namespace of its own" in found
    assert sum(line.startswith("it shares its net namespace") for line in found) == 1
    assert sum("with the daemon" in line for line in found) == 7


def _differences_of_ourselves(command: tuple[str, ...], zygotes_layout: str) -> list[str]:
    return verify.differences(
        os.getpid(),
        os.getppid(),
        Expectation(status=(), mounts=(), limits=(), command=command),
        apart_from=frozenset(),
        reapers_namespaces=frozenset(),
        zygotes_layout=zygotes_layout,
        in_cgroups=lambda pid: True,
    )


def test_a_process_that_may_be_traced_is_found() -> None:
    """As this one may: files of it in /proc are its user's."""
    if os.geteuid() != 0:  # root's files are root's in any case
        assert "it is dumpable" in _differences_of_ourselves((), "")
    with subprocess.Popen(["sleep", "60"], user=65532) as process:
        try:
            assert os.stat(f"/proc/{process.pid}/environ").st_uid == 65532
        finally:
            process.kill()


def test_a_fork_that_should_have_been_a_fresh_interpreter_is_found() -> None:
    """By the place of its stack, which an exec chooses anew; and by its arguments."""
    with Path("/proc/self/cmdline").open() as file:
        ours = tuple(file.read().split("\0")[:-1])
    layout = verify.layout(os.getpid())
    assert "its address layout is the zygote's" in _differences_of_ourselves(ours, layout)
    assert "its address layout is the zygote's" not in _differences_of_ourselves(ours, "1")
    assert "its address layout is the zygote's" in _differences_of_ourselves(ours, "")  # which is not known
    wrong = "its arguments are not those of the plan"
    assert wrong not in _differences_of_ourselves(ours, "1")
    assert wrong in _differences_of_ourselves((*ours, "-c"), "1")
    pid = os.fork()
    if pid == 0:
        os._exit(0 if verify.layout(os.getpid()) == layout else 1)
    assert os.waitpid(pid, 0)[1] == 0
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            while verify.layout(process.pid) == "0":  # in the middle of its exec
                pass
            assert verify.layout(process.pid) != layout
        finally:
            process.kill()


def test_a_reaper_that_is_not_as_planned_is_found_when_its_spare_is_made() -> None:
    """This very process has privileges, our namespaces, and is in no cgroup of an instance."""
    ours = verify.namespaces(os.getpid())
    status = (("Threads", "1000"),)
    found = verify.reaper_differences(os.getpid(), status, apart_from=ours, in_cgroups=lambda pid: False)
    assert found[0].startswith("Threads of the reaper is ")
    assert "the reaper is not in its cgroups" in found
    assert sum(line.startswith("the reaper shares its ") for line in found) == 7


def test_a_tmpfs_of_another_size_is_found() -> None:
    """The options of the file system count, too."""
    assert _mount_differences(MOUNTINFO, (("/", "ro,size=1024k"), ("/usr/lib", "ro"))) == []
    found = _mount_differences(MOUNTINFO, (("/", "ro,size=2048k"), ("/usr/lib", "ro")))
    assert found == ["the mount at / lacks size=2048k"]


def test_a_limit_that_was_not_set_is_found() -> None:
    """Soft and hard limit must both be the plan's."""
    limits = "Limit                Soft Limit  Hard Limit  Units\nMax open files       256         1024        files\n"
    assert _limit_differences(limits, (("Max open files", "256"),)) == ["Max open files is 256 and 1024, expected 256"]
    assert _limit_differences(limits, (("Max nice priority", "0"),)) == ["Max nice priority is missing, expected 0"]
