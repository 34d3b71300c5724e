"""What the zygote goes through before it forks anything, and how it forks."""

from __future__ import annotations

from tests.runner.test_rehearsal import run


def test_a_rehearsed_launch_leaves_nothing_behind() -> None:
    """Descriptors, modules, namespaces and the process's name are as before, and nobody was forked."""
    before, after = run(
        """
        from runagentd import kernel
        from runagentd.launch import rehearsal
        kernel.set_process_name("zygote")

        def look():
            spaces = [os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "net", "ipc", "uts", "cgroup", "user")]
            comm = open("/proc/self/comm").read()
            children = open(f"/proc/self/task/{os.getpid()}/children").read()
            return [sorted(os.listdir("/proc/self/fd")), sorted(sys.modules), spaces, comm, children]

        before = look()
        rehearsal.rehearse_often()
        print(json.dumps([before, look()]))
        """
    )
    assert before == after


def test_a_fork_that_nobody_is_told_of_is_a_whole_process() -> None:
    """Its thread has its own id, and it can fork again, start threads, and take its locks."""
    found = run(
        """
        import logging, threading
        from runagentd import kernel
        out, to = os.pipe()
        pid, pidfd = kernel.fork_alone()
        if pid == 0:
            done = []
            thread = threading.Thread(target=done.append, args=(1,))
            thread.start()
            thread.join()
            logging.getLogger("x").debug("x")
            inner = os.fork()
            if inner == 0:
                os._exit(3)
            status = os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1])
            main = threading.current_thread() is threading.main_thread()
            os.write(to, json.dumps([threading.get_native_id() == os.getpid(), main, done, status]).encode())
            os._exit(0)
        os.close(to)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        print(os.read(out, 1000).decode())
        """
    )
    assert found == [True, True, [1], 3]
