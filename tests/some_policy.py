"""A policy for tests that care about one or two of its values."""

from __future__ import annotations

from runagentd.policy.model import (
    CallIsolation,
    CallsPolicy,
    FilesPolicy,
    History,
    NetworkMode,
    NetworkPolicy,
    Policy,
    ProcessPolicy,
    ResourcesPolicy,
    Runtime,
    ScalingPolicy,
    Spawn,
    SyscallsPolicy,
)


def some_policy(*, exec: bool = False, groups: tuple[str, ...] = ()) -> Policy:
    return Policy(
        name="some",
        files=FilesPolicy(
            runtime=Runtime.PYTHON,
            read=(),
            persistent=False,
            app_size=1 << 26,
            app_inodes=4096,
            tmp_size=1 << 26,
            tmp_inodes=4096,
            shm_size=1 << 24,
            shm_inodes=256,
        ),
        process=ProcessPolicy(exec=exec, spawn=Spawn.FORK, nofile=256, fsize=1 << 26),
        resources=ResourcesPolicy(memory_max=1 << 28, pids_max=64, cpu_max=1.0, cpu_weight=100),
        syscalls=SyscallsPolicy(groups=groups),
        calls=CallsPolicy(
            isolation=CallIsolation.INSTANCE,
            concurrency=1,
            queue=16,
            deadline=300_000,
            start_timeout=10_000,
            cancel_grace=2_000,
            request_bytes=1 << 20,
            result_bytes=1 << 23,
            traceback=False,
            log_line_bytes=8192,
            log_bytes_per_minute=1 << 20,
            history=History.FACTS,
        ),
        network=NetworkPolicy(mode=NetworkMode.NONE),
        scaling=ScalingPolicy(instances_min=1, instances_max=1, target=1, idle=900_000, freeze=300_000),
        origins=(),
    )
