"""Make the mounts of a plan and hold them as descriptors: the zygote sees no host tree to make them from.

Runs as: the supervisor, in its own mount namespace.
Reads from strangers: nothing. The trees below a snapshot or a persistent folder are hostile, but are never walked here:
the kernel clones the mount at a folder that the supervisor itself made.
Every clone is private (a clone of a shared mount stays shared: a later host mount appeared inside, measured) and
non-recursive (what is mounted below a folder is not part of the grant).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from runagentd import kernel
from runagentd.names import storage_name
from runagentd.plan.model import AGENT_UID, Mount, MountKind

_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9)}
_DEVICE_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSources:
    """Where an agent's own mounts come from, and who will own them inside."""

    snapshot: int
    """descriptor of the folder that holds the agent's code"""
    persistent: int
    """descriptor of the folder that holds its persistent folders"""
    environment: int
    """descriptor of its environment, -1 where it has none"""
    uid: int
    user_namespace: int
    """maps the owner on the disk to the instance's uid, in idmapped mounts (mount_setattr(2))"""


class MountMaker:
    """Makes mounts. `scratch` is an empty folder, used as a mount point in a mount namespace of the caller's own."""

    def __init__(self, scratch: str) -> None:
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("none", "/", "none", kernel.MS_REC | kernel.MS_PRIVATE)
        flags = kernel.MS_NOSUID | kernel.MS_NOEXEC
        kernel.mount("scratch", scratch, "tmpfs", flags, "size=1m,nr_inodes=64,mode=0700")
        # Relative paths from here on: overlayfs shows its options to the agent as they were given.
        os.chdir(scratch)
        for name in ("devices", "lower", "upper"):
            os.mkdir(name, 0o755)
        _fill_devices("devices")

    def make(self, mounts: Sequence[Mount], sources: AgentSources | None) -> list[int]:
        """One detached mount each, in their order; the descriptors are the caller's. OSError names the source.

        `sources` is None where none of them is an agent's.
        """
        made: list[int] = []
        try:
            for mount in mounts:
                try:
                    made.append(_make(mount, sources))
                except OSError as error:
                    text = f"{mount.kind} mount of {mount.source} for {mount.target}: {error.strerror}"
                    raise OSError(error.errno, text) from error
        except BaseException:
            for descriptor in made:
                os.close(descriptor)
            raise
        return made


def _make(mount: Mount, sources: AgentSources | None) -> int:
    attributes = kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV
    attributes |= kernel.MOUNT_ATTR_RDONLY if mount.read_only else 0
    attributes |= kernel.MOUNT_ATTR_NOEXEC if mount.noexec else 0
    if mount.kind is MountKind.HOST:
        return _clone(kernel.AT_FDCWD, mount.source, attributes)
    if mount.kind is MountKind.DEVICES:
        return _clone(kernel.AT_FDCWD, "devices", attributes & ~kernel.MOUNT_ATTR_NODEV)
    if sources is None:
        raise OSError(errno.EINVAL, "nobody said whose it is")
    match mount.kind:
        case MountKind.SNAPSHOT:
            return _clone(sources.snapshot, mount.source, attributes, sources.user_namespace)
        case MountKind.ENVIRONMENT:
            # Root's, and readable by everybody: not mapped, for it is nobody's inside.
            return _clone(sources.environment, mount.source, attributes)
        case MountKind.PERSISTENT:
            name = storage_name(mount.source)
            _make_owned_folder(sources.persistent, name)
            return _clone(sources.persistent, name, attributes, sources.user_namespace)
        case _:
            return _overlay(mount, sources, attributes)


def _overlay(mount: Mount, sources: AgentSources, attributes: int) -> int:
    """overlayfs: the snapshot below, a bounded tmpfs above. Its layers are private to it, so both are unmounted."""
    lower, upper = "lower", "upper"
    snapshot_attributes = attributes | kernel.MOUNT_ATTR_RDONLY
    snapshot = _clone(sources.snapshot, ".", snapshot_attributes, sources.user_namespace)
    options = [("size", str(mount.size)), ("nr_inodes", str(mount.inodes)), ("mode", "0700")]
    with _mounted(snapshot, lower):
        writable = kernel.new_filesystem("tmpfs", options, kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV)
        with _mounted(writable, upper):
            for folder in ("work", "files"):
                os.mkdir(f"{upper}/{folder}", 0o755)
            os.chown(f"{upper}/files", sources.uid, sources.uid)
            for relative in mount.folders:
                path = f"{upper}/files"
                for part in relative.split("/"):
                    path = f"{path}/{part}"
                    if not os.path.isdir(path):
                        os.mkdir(path, 0o755)
                        os.chown(path, sources.uid, sources.uid)
            layers = [("lowerdir", lower), ("upperdir", f"{upper}/files"), ("workdir", f"{upper}/work")]
            return kernel.new_filesystem("overlay", layers, attributes)


def _fill_devices(folder: str) -> None:
    """A tmpfs with device nodes and the mount point for /dev/shm: nothing of the host's /dev but its numbers."""
    kernel.mount("devices", folder, "tmpfs", kernel.MS_NOSUID | kernel.MS_NOEXEC, "size=64k,nr_inodes=32,mode=0755")
    for name, (major, minor) in _DEVICES.items():
        os.mknod(f"{folder}/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
        os.chmod(f"{folder}/{name}", 0o666)  # mknod(2) applies the umask
    for name, target in _DEVICE_LINKS.items():
        os.symlink(target, f"{folder}/{name}")
    os.mkdir(f"{folder}/shm", 0o755)


def _clone(directory: int, path: str, attributes: int, user_namespace: int | None = None) -> int:
    descriptor = kernel.open_tree(directory, path, kernel.OPEN_TREE_CLONE | kernel.AT_SYMLINK_NOFOLLOW)
    try:
        kernel.mount_setattr(
            descriptor, set_attributes=attributes, propagation=kernel.MS_PRIVATE, user_namespace=user_namespace
        )
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _make_owned_folder(parent: int, name: str) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        return
    os.chown(name, AGENT_UID, AGENT_UID, dir_fd=parent)


@contextmanager
def _mounted(descriptor: int, place: str) -> Iterator[None]:
    try:
        kernel.move_mount(descriptor, place)
    finally:
        os.close(descriptor)
    try:
        yield
    finally:
        kernel.unmount(place)
