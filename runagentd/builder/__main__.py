"""The builder: make a jail, become nobody in it, install packages into one bounded folder, end. Thrown away each time.

Runs as: root until `confine`, before a byte of a stranger's is read; then a uid that owns nothing, pid 1 of a pid
namespace, without capabilities, with a filter, and with a network that holds nothing but lo.
Reads from strangers: requirements, an index and packages: that is what all this is for. It answers on one socket.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import socket
import sys

from runagentd import kernel
from runagentd.builder import install, jail
from runagentd.wire import build, record

FAILED_STATUS = 70


def main(arguments: list[str] | None = None) -> int:
    """Started by the supervisor with an empty environment; the numbers are descriptors."""
    options = _parser().parse_args(arguments)
    for descriptor in options.procs:
        os.write(descriptor, b"0")
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:
        score.write("1000")  # where the host runs out of memory, a build goes before everything else
    job = record.decode(build.BuildJob, _content(options.job), bytes_max=build.JOB_BYTES_MAX)
    program = _content(options.filter)
    report = socket.socket(fileno=options.report)
    last = kernel.last_capability()
    kernel.unshare(kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS | kernel.CLONE_NEWPID)
    kernel.loopback_up()
    kernel.set_hostname("builder")
    listeners = jail.listen(job.hosts)
    if listeners:
        socket.send_fds(report, [build.pack(build.Listening())], [each.fileno() for each in listeners])
    for each in listeners:
        each.close()
    if os.fork():
        # The kernel makes the next child pid 1 of the new namespace, not this process (pid_namespaces(7)).
        return 0
    try:
        try:
            jail.enter(job, options.jail, options.path, options.link, stage=options.stage, wheels=options.wheels)
            kernel.close_all_but({0, 1, 2, options.report, options.lifeline})
            jail.confine(options.uid, program, last=last, source=job.source, file_bytes=options.file_bytes)
        except OSError as error:
            words = f"the builder could not be confined, so it read nothing: {error}"
            report.send(build.pack(build.NotBuilt(words=words[: build.WORDS_MAX], full=False)))
        else:
            _first_process(job, report, options.lifeline)
    finally:
        os._exit(FAILED_STATUS)


def _first_process(job: build.BuildJob, report: socket.socket, lifeline: int) -> None:
    """Reap until the work is done or the supervisor is gone; the kernel ends all others with this one."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    children = kernel.signal_descriptor([signal.SIGCHLD])
    worker = os.fork()
    if worker == 0:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.close(children)
            os.close(lifeline)
            install.run(job, report)
            os._exit(0)
        finally:
            os._exit(FAILED_STATUS)
    report.close()
    poll = select.poll()
    poll.register(children, select.POLLIN)
    poll.register(lifeline, select.POLLIN)
    while True:
        if any(descriptor == lifeline for descriptor, _ in poll.poll()):
            os._exit(0)
        os.read(children, 128)
        while True:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if pid == worker:
                os._exit(0)
            if pid == 0:
                break


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="runagentd-builder")
    for name in ("report", "lifeline", "job", "filter", "stage", "uid", "file-bytes"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--wheels", type=int, default=-1)
    parser.add_argument("--procs", type=int, action="append", default=[])
    parser.add_argument("--jail", required=True)
    parser.add_argument("--path", action="append", default=[])
    parser.add_argument("--link", action="append", default=[])
    return parser


def _content(descriptor: int) -> bytes:
    try:
        size = os.fstat(descriptor).st_size
        return os.pread(descriptor, size, 0)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
