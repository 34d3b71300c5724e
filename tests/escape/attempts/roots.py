"""Attempts to leave the root directory, and to make inodes that carry power: devices, set-id files, handles.

Runs as: see `frame`.
Reads from strangers: nothing.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import struct
import tempfile
import time

from tests.escape.attempts import kernel
from tests.escape.attempts.files import AREA, can_open
from tests.escape.attempts.frame import Nothing, attempt


def _same_as_root(descriptor: int) -> str:
    here, root = os.fstat(descriptor), os.stat("/")
    if (here.st_dev, here.st_ino) == (root.st_dev, root.st_ino):
        raise Nothing("it ends at our own root")
    return f"another root: {os.listdir(descriptor)[:8]}"


def _dots_after_chroot() -> str:
    # The classic: keep a folder from before, change the root below it, and climb from the folder.
    held = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.chroot("/usr")
    os.fchdir(held)
    return _same_as_root(os.open("../..", os.O_RDONLY | os.O_DIRECTORY))


@attempt(AREA, "nothing", control=_dots_after_chroot)
def climb_by_dots_from_a_held_folder() -> str:
    """'..' of a folder that lies outside of the root is not stopped at the root."""
    held = os.open("/app", os.O_RDONLY | os.O_DIRECTORY)
    return _same_as_root(os.open("../" * 60, os.O_RDONLY | os.O_DIRECTORY, dir_fd=held))


@attempt(AREA, "nothing", control=_dots_after_chroot)
def climb_by_dots_from_a_removed_folder() -> str:
    """A folder that was removed or moved while it is open may have lost its way to the root."""
    os.makedirs("/tmp/a/b")
    held = os.open("/tmp/a/b", os.O_RDONLY | os.O_DIRECTORY)
    os.rename("/tmp/a/b", "/tmp/b")
    above = os.open("../" * 60, os.O_RDONLY | os.O_DIRECTORY, dir_fd=held)
    shutil.rmtree("/tmp/a")
    shutil.rmtree("/tmp/b")
    return _same_as_root(above)


def _root_of_a_chrooted_process() -> str:
    child = os.fork()
    if child == 0:
        os.chroot("/usr")
        time.sleep(5)
        os._exit(0)
    time.sleep(0.2)
    try:
        return _same_as_root(os.open(f"/proc/{child}/root", os.O_RDONLY | os.O_DIRECTORY))
    finally:
        os.kill(child, 9)


@attempt(AREA, "nothing ENOENT EACCES", control=_root_of_a_chrooted_process)
def leave_by_the_root_of_process_1() -> str:
    """/proc/PID/root is that process's root, opened without walking there."""
    return _same_as_root(os.open("/proc/1/root", os.O_RDONLY | os.O_DIRECTORY))


@attempt(AREA, "nothing", control=_root_of_a_chrooted_process)
def leave_by_our_own_root() -> str:
    """/proc/self/root and /proc/self/cwd/.. are magic links."""
    _same_as_root(os.open("/proc/self/cwd/../..", os.O_RDONLY | os.O_DIRECTORY))
    return _same_as_root(os.open("/proc/self/root", os.O_RDONLY | os.O_DIRECTORY))


@attempt(AREA, "EPERM")
def change_the_root() -> str:
    """chroot into a folder of ours, then out of it: the oldest way."""
    os.chroot("/tmp")
    return "changed the root"


@attempt(AREA, "ENOENT")
def follow_a_link_to_the_host() -> str:
    """A symbolic link is only text: it is walked from our own root, and the file is not there."""
    path = os.path.join(tempfile.mkdtemp(), "link")
    os.symlink("/etc/shadow", path)
    return can_open(path, os.O_RDONLY)


def _handle(path: str) -> bytes:
    buffer = ctypes.create_string_buffer(struct.pack("ii", 128, 0) + bytes(128))
    mount_id = kernel.room(4)
    kernel.call("name_to_handle_at", kernel.AT_FDCWD, path.encode(), ctypes.addressof(buffer), mount_id, 0)
    return buffer.raw


@attempt(AREA, "EPERM")
def name_a_file_by_its_inode() -> str:
    """name_to_handle_at shows the numbers that open_by_handle_at wants."""
    return _handle("/tmp").hex()


def _open_a_real_handle() -> str:
    held = os.open("/tmp", os.O_RDONLY)
    return f"descriptor {kernel.call('open_by_handle_at', held, _handle('/tmp'), os.O_RDONLY)}"


@attempt(AREA, "EPERM", control=_open_a_real_handle)
def open_a_file_by_its_inode() -> str:
    """open_by_handle_at takes numbers instead of a path: 'Shocker' read the host out of Docker with inode 2."""
    handle = struct.pack("iiII", 8, 1, 2, 0)
    return f"descriptor {kernel.call('open_by_handle_at', os.open('/', os.O_RDONLY), handle, os.O_RDONLY)}"


# ---- devices and set-id bits


@attempt(AREA, "EPERM")
def make_a_memory_device() -> str:
    """mknod of /dev/mem."""
    os.mknod("/tmp/mem", stat.S_IFCHR | 0o600, os.makedev(1, 1))
    os.unlink("/tmp/mem")
    return "made a character device"


@attempt(AREA, "EPERM")
def make_a_disk_device() -> str:
    """mknod of the first disk."""
    os.mknod("/tmp/disk", stat.S_IFBLK | 0o600, os.makedev(8, 0))
    os.unlink("/tmp/disk")
    return "made a block device"


@attempt(AREA, "EPERM")
def make_an_overlay_whiteout() -> str:
    """A character device 0:0 needs no capability since Linux 5.8, and is how an overlay deletes."""
    os.mknod("/app/whiteout", stat.S_IFCHR | 0o600, 0)
    os.unlink("/app/whiteout")
    return "made a whiteout"


@attempt(AREA, "EPERM", sees="open")
def set_an_overlay_attribute() -> str:
    """trusted.overlay.redirect tells an overlay where a folder's other half lies: on a layer of the host's."""
    os.setxattr("/tmp", "trusted.overlay.redirect", b"/etc")
    return "set"


@attempt(AREA, "EPERM")
def set_an_attribute() -> str:
    """setxattr at all: attributes carry ACLs and file capabilities."""
    path = os.path.join(tempfile.mkdtemp(), "file")
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
    os.setxattr(path, "user.escape", b"1")
    return "set"


@attempt(AREA, "EPERM")
def give_a_file_capabilities() -> str:
    """security.capability makes a program privileged without a set-user-ID bit."""
    path = os.path.join(tempfile.mkdtemp(), "file")
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
    os.setxattr(path, "security.capability", struct.pack("<IIIII", 0x02000001, 0xFFFFFFFF, 0, 0, 0))
    return "set"


@attempt(AREA, "EPERM")
def set_the_setuid_bit() -> str:
    """A set-user-ID file would outlive us in a persistent folder."""
    path = os.path.join(tempfile.mkdtemp(), "file")
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
    os.chmod(path, 0o4755)
    return "set"


@attempt(AREA, "EPERM")
def set_the_setgid_bit_of_a_descriptor() -> str:
    """The same by fchmod."""
    with tempfile.TemporaryFile() as file:
        os.fchmod(file.fileno(), 0o2755)
    return "set"


@attempt(AREA, "EPERM")
def create_a_file_with_the_setuid_bit() -> str:
    """The mode of open(2) can have the bit at once."""
    descriptor = os.open(os.path.join(tempfile.mkdtemp(), "file"), os.O_WRONLY | os.O_CREAT, 0o4755)
    return f"mode {os.fstat(descriptor).st_mode:o}"


@attempt(AREA, "ENOSYS")
def create_a_setuid_file_with_openat2() -> str:
    """openat2's mode lies in memory, where a filter cannot read it."""
    path = os.path.join(tempfile.mkdtemp(), "file").encode()
    how = struct.pack("<QQQ", os.O_WRONLY | os.O_CREAT, 0o4755, 0)
    return f"mode {os.fstat(kernel.call('openat2', kernel.AT_FDCWD, path, how, len(how))).st_mode:o}"


@attempt(AREA, "EPERM")
def give_a_file_away() -> str:
    """chown, and with it another user's quota or trust."""
    with tempfile.TemporaryFile() as file:
        os.fchown(file.fileno(), 1, 1)
    return "given away"
