"""The system calls that Python's standard library lacks: one function per call, each with its man page.

Runs as: the supervisor, the zygote, the launcher, the loader and the gateway, before they give up their privileges.
Reads from strangers: nothing.
The only module with ctypes besides the libseccomp binding. Every function raises OSError with the call's name.
Arguments that the kernel takes as 64 bits are passed as 64 bits; nothing here decides anything.
"""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import os
import platform
import signal
import socket
import struct
from collections.abc import Iterable

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
# Looked up here once, and not by each fork of the zygote: the first use of such a name makes an object of it.
_libc_mount, _libc_umount2, _libc_prctl = _libc.mount, _libc.umount2, _libc.prctl
_libc_setns, _libc_unshare = _libc.setns, _libc.unshare
_syscall_with_lock = ctypes.PyDLL(None, use_errno=True).syscall
_syscall_with_lock.restype = ctypes.c_long

# Numbers from 424 on are the same on every architecture; the older ones that we need differ.
_MACHINE = platform.machine()
_OLD_NUMBERS = {
    "x86_64": {
        "pivot_root": 155,
        "capset": 126,
        "keyctl": 250,
        "set_robust_list": 273,
        "get_robust_list": 274,
        "seccomp": 317,
    },
    "aarch64": {
        "pivot_root": 41,
        "set_robust_list": 99,
        "get_robust_list": 100,
        "capset": 91,
        "keyctl": 219,
        "seccomp": 277,
    },
}
_NUMBERS = {
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
    **_OLD_NUMBERS.get(_MACHINE, {}),
}

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_SYMLINK_NOFOLLOW = 0x100

CLONE_PIDFD = 0x00001000
CLONE_CHILD_CLEARTID = 0x00200000
CLONE_CHILD_SETTID = 0x01000000
CLONE_INTO_CGROUP = 0x200000000
CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_NOSYMFOLLOW = 0x100
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 2

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_NOSYMFOLLOW = 0x200000
MOUNT_ATTR_IDMAP = 0x100000

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6

SO_SNDBUFFORCE = 32
"""socket(7); the standard library does not name it."""

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_WITHIN = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
"""To what lies in a folder itself: no link is followed, and no mount is crossed."""

_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_CAPBSET_DROP = 24
_PR_SET_SECUREBITS = 28
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_GET_TID_ADDRESS = 40
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4

# NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE, each with its lock; KEEP_CAPS off and locked (capabilities(7)).
_SECUREBITS_LOCKED = 0b11101111

CAP_CHOWN = 0
CAP_DAC_OVERRIDE = 1
CAP_FOWNER = 3
CAP_KILL = 5
CAP_SETGID = 6
CAP_SETUID = 7
CAP_SETPCAP = 8
CAP_NET_BIND_SERVICE = 10
CAP_NET_ADMIN = 12
CAP_SYS_CHROOT = 18
CAP_SYS_PTRACE = 19
CAP_SYS_ADMIN = 21
CAP_MKNOD = 27

_SECCOMP_SET_MODE_FILTER = 1
_KEYCTL_JOIN_SESSION_KEYRING = 1


def _fail(name: str, number: int) -> OSError:
    return OSError(number, f"{name}: {os.strerror(number)}")


def _call(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """One system call by number; int arguments travel as 64 bits."""
    number = _NUMBERS.get(name)
    if number is None:
        raise OSError(errno.ENOSYS, f"{name}: no number known for {_MACHINE}")
    widened = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result: int = _syscall(ctypes.c_long(number), *widened)
    if result == -1:
        raise _fail(name, ctypes.get_errno())
    return result


def _prctl(option: int, *arguments: int) -> int:
    padded = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    result: int = _libc_prctl(ctypes.c_int(option), *padded)
    if result == -1:
        raise _fail(f"prctl {option}", ctypes.get_errno())
    return result


# ---- namespaces


def unshare(flags: int) -> None:
    """unshare(2)."""
    if _libc_unshare(ctypes.c_int(flags)) == -1:
        raise _fail("unshare", ctypes.get_errno())


def setns(descriptor: int, flags: int) -> None:
    """setns(2)."""
    if _libc_setns(ctypes.c_int(descriptor), ctypes.c_int(flags)) == -1:
        raise _fail("setns", ctypes.get_errno())


class _CloneArgs(ctypes.Structure):
    """struct clone_args of clone(2), as of Linux 5.7."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls", "set_tid",
            "set_tid_size", "cgroup",
        )
    )  # fmt: skip


def thread_id_address() -> int:
    """Where the C library keeps this thread's id, as the kernel was told (prctl(2), PR_GET_TID_ADDRESS); 0 if unknown.

    Unknown where the kernel was built without CONFIG_CHECKPOINT_RESTORE.
    """
    address = ctypes.c_uint64(0)
    try:
        _prctl(_PR_GET_TID_ADDRESS, ctypes.addressof(address))
    except OSError:
        return 0
    return address.value


def fork_alone(*, flags: int = 0, cgroup: int | None = None) -> tuple[int, int]:
    """fork(2) of a process of one thread, in namespaces of `flags`: (0, -1) in the child, its pid and a pidfd for us.

    `cgroup` is an open v2 cgroup to be born in (clone3, Linux 5.7): that costs no grace period of all processors, as a
    move into one does (5 to 7 ms on a machine at rest).
    Only the kernel learns of this fork. The C library's view of the new process is made true here (its thread id and
    the list of robust locks). Handlers of pthread_atfork(3) and of os.register_at_fork() are not called, nor what
    CPython does itself: all that is about other threads and about locks that they may hold, and there are none; what is
    about random numbers the step `reseed` does. For the runner it would be 250 page faults more, and 0.2 MB (measured
    2026-11-28). OSError ENOSYS where the place of the thread id is unknown.
    """
    thread_id = thread_id_address()
    if not thread_id:
        raise _fail("clone3", errno.ENOSYS)
    pidfd = ctypes.c_int32(-1)
    head, size = ctypes.c_uint64(0), ctypes.c_uint64(0)
    _call("get_robust_list", 0, ctypes.addressof(head), ctypes.addressof(size))
    arguments = _CloneArgs(
        flags=flags | CLONE_PIDFD | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID,
        pidfd=ctypes.addressof(pidfd),
        child_tid=thread_id,
        exit_signal=signal.SIGCHLD,
    )
    if cgroup is not None:
        arguments.flags |= CLONE_INTO_CGROUP
        arguments.cgroup = cgroup
    number, length = ctypes.c_long(_NUMBERS["clone3"]), ctypes.c_long(ctypes.sizeof(arguments))
    # By a call that keeps the interpreter's lock, which the child must own.
    pid: int = _syscall_with_lock(number, ctypes.byref(arguments), length)
    if pid == -1:
        raise _fail("clone3", ctypes.get_errno())
    if pid == 0:
        try:
            _call("set_robust_list", head.value, size.value)
        except OSError:
            os._exit(127)  # an exception here would be taken for the parent's
        return 0, -1
    return pid, pidfd.value


def set_hostname(name: str) -> None:
    """sethostname(2)."""
    socket.sethostname(name)


def loopback_up() -> None:
    """Set the flag IFF_UP of the interface lo (netdevice(7)); any socket will do, so no AF_INET is needed."""
    siocgifflags, siocsifflags, iff_up = 0x8913, 0x8914, 0x1
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        request = struct.pack("16sH22x", b"lo", 0)
        answer = fcntl.ioctl(any_socket.fileno(), siocgifflags, request)
        flags: int = struct.unpack_from("16sH", answer)[1]
        fcntl.ioctl(any_socket.fileno(), siocsifflags, struct.pack("16sH22x", b"lo", flags | iff_up))


def add_loopback_address(address: str, number: int) -> None:
    """SIOCSIFADDR of netdevice(7): one more IPv4 address of the interface lo, as its alias `number`."""
    siocsifaddr = 0x8916
    name = f"lo:{number}".encode("ascii")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        request = struct.pack("=16sHH4s8x", name, socket.AF_INET, 0, socket.inet_aton(address))
        fcntl.ioctl(any_socket.fileno(), siocsifaddr, request)


def join_session_keyring() -> None:
    """keyctl_join_session_keyring(3): a new anonymous keyring, so that none is shared with the daemon."""
    _call("keyctl", _KEYCTL_JOIN_SESSION_KEYRING, None)


# ---- mounts


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """mount(2)."""
    result = _libc_mount(source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), data.encode())
    if result == -1:
        raise _fail(f"mount {kind} at {target}", ctypes.get_errno())


def unmount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2)."""
    if _libc_umount2(os.fsencode(target), ctypes.c_int(flags)) == -1:
        raise _fail(f"umount2 {target}", ctypes.get_errno())


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    _call("pivot_root", os.fsencode(new_root), os.fsencode(put_old))


def open_tree(directory: int, path: str, flags: int) -> int:
    """open_tree(2): with OPEN_TREE_CLONE a detached copy of the mount at `path`, as a descriptor."""
    return _call("open_tree", directory, os.fsencode(path), flags | OPEN_TREE_CLOEXEC)


def move_mount(mount_descriptor: int, target: str) -> None:
    """move_mount(2): attach a detached mount."""
    _call("move_mount", mount_descriptor, b"", AT_FDCWD, os.fsencode(target), MOVE_MOUNT_F_EMPTY_PATH)


def bind(source: str, target: str, *, attributes: int) -> None:
    """A private copy of the mount at `source`, without what is mounted below it, at `target`, which is made.

    `attributes` are MOUNT_ATTR_* bits.
    """
    copy = open_tree(AT_FDCWD, source, OPEN_TREE_CLONE)
    try:
        mount_setattr(copy, set_attributes=attributes, propagation=MS_PRIVATE)
        if os.path.isdir(source):
            os.makedirs(target, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "xb"):
                pass
        move_mount(copy, target)
    finally:
        os.close(copy)


def mount_setattr(
    mount_descriptor: int, *, set_attributes: int = 0, propagation: int = 0, user_namespace: int | None = None
) -> None:
    """mount_setattr(2) on a mount by descriptor; `user_namespace` makes it an idmapped mount."""
    if user_namespace is not None:
        set_attributes |= MOUNT_ATTR_IDMAP
    attributes = struct.pack("=QQQQ", set_attributes, 0, propagation, user_namespace or 0)
    _call("mount_setattr", mount_descriptor, b"", AT_EMPTY_PATH, attributes, len(attributes))


def new_filesystem(kind: str, options: Iterable[tuple[str, str]], attributes: int) -> int:
    """fsopen(2), fsconfig(2), fsmount(2): a new filesystem, detached, as a descriptor."""
    context = _call("fsopen", kind.encode(), FSMOUNT_CLOEXEC)
    try:
        for key, value in options:
            _call("fsconfig", context, _FSCONFIG_SET_STRING, key.encode(), value.encode(), 0)
        _call("fsconfig", context, _FSCONFIG_CMD_CREATE, None, None, 0)
        return _call("fsmount", context, FSMOUNT_CLOEXEC, attributes)
    finally:
        os.close(context)


# ---- files


def openat2(directory: int, path: str, flags: int, *, mode: int = 0, resolve: int) -> int:
    """openat2(2): open below `directory` under the rules of `resolve`; the descriptor is close-on-exec."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)
    return _call("openat2", directory, os.fsencode(path), how, len(how))


def syncfs(descriptor: int) -> None:
    """syncfs(2): all that was written to the file system of `descriptor` is on the disk when this returns."""
    if _libc.syncfs(ctypes.c_int(descriptor)) == -1:
        raise _fail("syncfs", ctypes.get_errno())


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory(*, bytes_max: int, piece_bytes_max: int) -> None:
    """mallopt(3): keep up to so much for the next time, of pieces up to such a size; larger ones go back at once.

    Of use to who takes and frees the same large pieces again and again: each costs a page fault for every 4 KiB anew.
    Does nothing where the C library has no such call.
    """
    mallopt = getattr(_libc, "mallopt", None)
    if mallopt is not None:
        mallopt(ctypes.c_int(_M_TRIM_THRESHOLD), ctypes.c_int(bytes_max))
        mallopt(ctypes.c_int(_M_MMAP_THRESHOLD), ctypes.c_int(piece_bytes_max))


def give_memory_back() -> None:
    """malloc_trim(3): what was freed within the heap goes back to the kernel. Nothing where there is no such call."""
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


def close_range(first: int, last: int = 0xFFFFFFFF) -> None:
    """close_range(2), Linux 5.9."""
    if first <= last:
        _call("close_range", first, last, 0)


def close_all_but(keep: Iterable[int]) -> None:
    """Close every descriptor that is not in `keep`."""
    first = 0
    for descriptor in sorted(set(keep)):
        close_range(first, descriptor - 1) if descriptor > first else None
        first = descriptor + 1
    close_range(first)


def sealed_memfd(name: str, content: bytes) -> int:
    """memfd_create(2) with `content`, sealed so that nobody can change it any more (fcntl(2), F_ADD_SEALS)."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def received_descriptors(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors in what recvmsg(2) gave beside a message (unix(7), SCM_RIGHTS); they are the caller's."""
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def signal_descriptor(signals: Iterable[int]) -> int:
    """signalfd(2), close-on-exec and non-blocking; the signals must be blocked by the caller."""
    mask = 0
    for number in signals:
        mask |= 1 << (number - 1)
    # glibc's sigset_t is 128 bytes; the kernel reads the first eight.
    words = (ctypes.c_ulong * 16)(mask)
    descriptor: int = _libc.signalfd(ctypes.c_int(-1), words, ctypes.c_int(os.O_CLOEXEC | os.O_NONBLOCK))
    if descriptor == -1:
        raise _fail("signalfd", ctypes.get_errno())
    return descriptor


# inotify(7)
IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x8, 0x40, 0x80, 0x100, 0x200
IN_ONLYDIR, IN_DONT_FOLLOW = 0x01000000, 0x02000000


def inotify() -> int:
    """inotify_init1(2), close-on-exec and non-blocking."""
    descriptor: int = _libc.inotify_init1(ctypes.c_int(os.O_CLOEXEC | os.O_NONBLOCK))
    if descriptor == -1:
        raise _fail("inotify_init1", ctypes.get_errno())
    return descriptor


def inotify_add_watch(descriptor: int, path: str, mask: int) -> None:
    """inotify_add_watch(2); for a directory that is watched already the mask is replaced."""
    watched = _libc.inotify_add_watch(ctypes.c_int(descriptor), os.fsencode(path), ctypes.c_uint32(mask))
    if watched == -1:
        raise _fail(f"inotify_add_watch {path}", ctypes.get_errno())


# ---- privileges


def last_capability() -> int:
    """The highest capability that this kernel knows (capabilities(7))."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        return int(file.read())


def keep_capabilities(keep: Iterable[int], last: int) -> None:
    """Drop all capabilities up to `last` but `keep` from every set, the bounding set first: that needs CAP_SETPCAP."""
    kept = frozenset(keep)
    for capability in range(last + 1):
        if capability not in kept:
            _prctl(_PR_CAPBSET_DROP, capability)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    mask = sum(1 << capability for capability in kept)
    _capset(permitted=mask, effective=mask)


def clear_capabilities(last: int) -> None:
    """No capability in any set, and securebits locked so that uid 0 means nothing: capabilities(7)."""
    for capability in range(last + 1):
        _prctl(_PR_CAPBSET_DROP, capability)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _prctl(_PR_SET_SECUREBITS, _SECUREBITS_LOCKED)
    _capset(permitted=0, effective=0)


def _capset(*, permitted: int, effective: int) -> None:
    """capset(2), version 3; the inheritable set is always empty."""
    header = struct.pack("=Ii", 0x20080522, 0)
    low, high = 0xFFFFFFFF, 32
    data = struct.pack("=6I", effective & low, permitted & low, 0, effective >> high, permitted >> high, 0)
    _call("capset", header, data)


def set_no_new_privs() -> None:
    """PR_SET_NO_NEW_PRIVS (prctl(2))."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def set_dumpable(dumpable: bool) -> None:
    """PR_SET_DUMPABLE (prctl(2))."""
    _prctl(_PR_SET_DUMPABLE, int(dumpable))


def set_child_subreaper() -> None:
    """PR_SET_CHILD_SUBREAPER (prctl(2))."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_process_name(name: str) -> None:
    """PR_SET_NAME (prctl(2)): at most 15 bytes are kept."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    _prctl(_PR_SET_NAME, ctypes.addressof(buffer))


def drop_privileges(uid: int, gid: int, *, last: int | None = None) -> None:
    """Become `uid` for good: no groups, no capability in any set, no_new_privs. The order is that of docs/sandbox.md.

    `last` is the highest capability, for a caller that cannot read /proc any more.
    """
    if last is None:
        last = last_capability()
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    for capability in range(last + 1):
        # Before the uid: dropping from the bounding set needs CAP_SETPCAP, which setresuid(2) ends.
        _prctl(_PR_CAPBSET_DROP, capability)
    _prctl(_PR_SET_SECUREBITS, _SECUREBITS_LOCKED & ~0b1100)  # with NO_SETUID_FIXUP setresuid would keep them
    os.setresuid(uid, uid, uid)
    _capset(permitted=0, effective=0)
    set_no_new_privs()


def status_fields(pid: int | str = "self") -> dict[str, str]:
    """/proc/PID/status as a dictionary (proc_pid_status(5))."""
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        pairs = (line.rstrip("\n").partition(":") for line in file)
        return {key: value.strip() for key, _, value in pairs}


# ---- seccomp and Landlock


class _SockFprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def load_seccomp_filter(program: bytes, flags: int = 0) -> int:
    """seccomp(2), SECCOMP_SET_MODE_FILTER: `program` is an array of struct sock_filter, 8 bytes each."""
    buffer = ctypes.create_string_buffer(program, len(program))
    descriptor = _SockFprog(len(program) // 8, ctypes.addressof(buffer))
    number = ctypes.c_long(_NUMBERS["seccomp"])
    result: int = _syscall(
        number, ctypes.c_long(_SECCOMP_SET_MODE_FILTER), ctypes.c_long(flags), ctypes.byref(descriptor)
    )
    if result == -1:
        raise _fail("seccomp", ctypes.get_errno())
    return result


_LANDLOCK_CREATE_RULESET_VERSION = 1
_LANDLOCK_RULE_PATH_BENEATH = 1


def landlock_abi() -> int:
    """The version of Landlock that this kernel offers, 0 where it has none (landlock(7))."""
    try:
        return _call("landlock_create_ruleset", None, 0, _LANDLOCK_CREATE_RULESET_VERSION)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP):
            return 0
        raise


def landlock_create_ruleset(*, filesystem: int, network: int, scoped: int) -> int:
    """landlock_create_ruleset(2); the fields that this kernel's version does not know must be 0."""
    attributes = struct.pack("=QQQ", filesystem, network, scoped)
    size = 24 if scoped else 16 if network else 8
    return _call("landlock_create_ruleset", attributes[:size], size, 0)


def landlock_allow_path(ruleset: int, directory: int, access: int) -> None:
    """landlock_add_rule(2): allow `access` at and below the file that `directory` is open on."""
    _call("landlock_add_rule", ruleset, _LANDLOCK_RULE_PATH_BENEATH, struct.pack("=Qi", access, directory), 0)


def landlock_restrict_self(ruleset: int) -> None:
    """landlock_restrict_self(2)."""
    _call("landlock_restrict_self", ruleset, 0)


# ---- the interpreter


def raise_in_thread(thread_id: int, exception: type[BaseException]) -> bool:
    """PyThreadState_SetAsyncExc: raise in another thread of this interpreter; False where there is no such thread."""
    changed = ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), ctypes.py_object(exception))
    return bool(changed)
