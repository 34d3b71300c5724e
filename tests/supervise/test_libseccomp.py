"""What libseccomp compiles is what the filter says, in both halves of every argument."""

from __future__ import annotations

import errno
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runagentd.errors import HostError
from runagentd.plan.seccomp import (
    ALLOW,
    KILL_PROCESS,
    LOG,
    NOTIFY,
    TRAP,
    Action,
    Rule,
    SyscallFilter,
    filter_for,
    reaper_filter,
    refuse,
)
from runagentd.plan.syscalls import ALL_BITS, UPPER_HALF, Condition, Newest, shipped_table
from runagentd.supervise import libseccomp
from tests import bpf
from tests.some_policy import some_policy

TABLE = shipped_table()
NATIVE = libseccomp.native_arch()
X86_64 = 0xC000003E
I386, ARM, AARCH64 = 0x40000003, 0x40000028, 0xC00000B7
NEWEST = 469

BASE = filter_for(some_policy(), TABLE)
BASE_PROGRAM = libseccomp.compile(BASE)
WIDEST = filter_for(some_policy(exec=True, groups=tuple(sorted(TABLE.selectable()))), TABLE)
WIDEST_PROGRAM = libseccomp.compile(WIDEST)
REAPER = reaper_filter(TABLE)
REAPER_PROGRAM = libseccomp.compile(REAPER)


def number(call: str) -> int:
    """Numbers from 424 on are the table's own; the rest is libseccomp's knowledge."""
    found = libseccomp.resolve(call, {"fchmodat2": 452}.get(call))
    if found is None:
        raise LookupError(call)
    return found


def base(call: str, *arguments: int) -> str:
    return bpf.outcome(BASE_PROGRAM, NATIVE, number(call), arguments)


def decide(filter: SyscallFilter, call_number: int, arguments: tuple[int, ...]) -> str:
    """The filter's meaning, read off the value itself: the model that the program is compared with."""
    if call_number > filter.newest.number:
        foreign = NATIVE == X86_64 and 0x40000000 <= call_number < 0xFFFFFFFF
        return "kill-process" if foreign else "ENOSYS"
    for rule in filter.rules:
        if libseccomp.resolve(rule.call, rule.number) == call_number and all(
            arguments[condition.argument] & condition.mask == condition.value for condition in rule.conditions
        ):
            return rule.action.describe()
    return filter.default.describe()


# ---- what is allowed


@pytest.mark.parametrize(
    ("filter", "program"), [(BASE, BASE_PROGRAM), (WIDEST, WIDEST_PROGRAM), (REAPER, REAPER_PROGRAM)]
)
def test_every_rule_takes_effect(filter: SyscallFilter, program: bytes) -> None:
    """Nothing that the table says vanishes on the way into the program."""
    for rule in filter.rules:
        call_number = libseccomp.resolve(rule.call, rule.number)
        if call_number is None:
            continue
        arguments = [0] * 6
        for condition in rule.conditions:
            arguments[condition.argument] = condition.value
        assert bpf.outcome(program, NATIVE, call_number, arguments) == rule.action.describe(), rule.call


def test_every_name_of_the_table_is_a_call_of_this_machine_or_of_the_other() -> None:
    """On x86-64, which has the older names too, all resolve: a misspelt name would be a hole in what works."""
    absent = [rule.call for rule in WIDEST.rules if libseccomp.resolve(rule.call, rule.number) is None]
    assert NATIVE != X86_64 or absent == []


def test_numbers_that_the_table_gives_are_those_of_the_library() -> None:
    assert libseccomp.resolve("landlock_create_ruleset", 444) == 444
    with pytest.raises(HostError, match="libseccomp calls openat2 number 437"):
        libseccomp.resolve("openat2", 438)


# ---- what is not


@pytest.mark.parametrize("arguments", [(0,) * 6, (1,) * 6, (ALL_BITS,) * 6, (UPPER_HALF,) * 6])
def test_everything_that_is_not_listed_is_refused_with_eperm(arguments: tuple[int, ...]) -> None:
    listed = {libseccomp.resolve(rule.call, rule.number) for rule in BASE.rules}
    others = [candidate for candidate in range(NEWEST + 1) if candidate not in listed]
    assert len(others) > 200
    assert {bpf.outcome(BASE_PROGRAM, NATIVE, other, arguments) for other in others} == {"EPERM"}


@pytest.mark.parametrize("call_number", [470, 471, 512, 1000, 0x3FFFFFFF])
def test_a_call_newer_than_the_table_does_not_exist(call_number: int) -> None:
    """ENOSYS makes a C library fall back; EPERM would be reported to the user."""
    assert bpf.outcome(BASE_PROGRAM, NATIVE, call_number) == "ENOSYS"


def test_the_number_that_a_tracer_skips_a_call_with_does_not_exist() -> None:
    assert bpf.outcome(BASE_PROGRAM, NATIVE, 0xFFFFFFFF) == "ENOSYS"


@pytest.mark.parametrize("arch", [I386, ARM, AARCH64 if NATIVE == X86_64 else X86_64, 0])
@pytest.mark.parametrize("call_number", [0, 1, 3, 20, 102, 469, 470, 0x40000001])
def test_a_call_of_another_abi_kills_the_process(arch: int, call_number: int) -> None:
    """102 is i386's socketcall, whose arguments lie in memory (moby#52494)."""
    for program in (BASE_PROGRAM, WIDEST_PROGRAM, REAPER_PROGRAM):
        assert bpf.outcome(program, arch, call_number) == "kill-process"


@pytest.mark.parametrize("call_number", [0x40000000, 0x40000001, 0x40000000 + 547, 0x80000000, 0xFFFFFFFE])
def test_an_x32_call_kills_the_process(call_number: int) -> None:
    """x32 has the architecture word of x86-64 and marks its numbers; arm64 has no such thing."""
    expected = "kill-process" if NATIVE == X86_64 else "ENOSYS"
    assert bpf.outcome(BASE_PROGRAM, NATIVE, call_number) == expected


def test_clone3_does_not_exist_so_that_glibc_uses_clone() -> None:
    assert base("clone3") == "ENOSYS"
    assert base("openat2") == "ENOSYS"


# ---- arguments

THREAD = 0x3D0F00
FORK = 0x1200011
NAMESPACES = [0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000]


def test_threads_and_forks_are_allowed() -> None:
    assert base("clone", THREAD) == "allow"
    assert base("clone", FORK) == "allow"


@pytest.mark.parametrize("flag", NAMESPACES)
@pytest.mark.parametrize("others", [0, FORK, THREAD])
def test_no_clone_makes_a_namespace(flag: int, others: int) -> None:
    assert base("clone", others | flag) == "EPERM"
    assert base("clone", others | flag << 32) == "EPERM"
    assert base("clone", others | flag | 1 << 63) == "EPERM"


def test_only_unix_sockets_can_be_made() -> None:
    assert base("socket", 1, 1, 0) == "allow"
    allowed = [family for family in range(64) if base("socket", family, 1, 0) == "allow"]
    assert allowed == [1]
    assert [family for family in range(64) if base("socketpair", family, 1, 0) == "allow"] == [1]


@pytest.mark.parametrize("family", [1, 2, 10, 16, 17, 38, 40])
@pytest.mark.parametrize("upper", [1, 0x80000000, 0xFFFFFFFF])
def test_a_family_with_bits_above_its_32_is_refused(family: int, upper: int) -> None:
    """The kernel reads 32 bits: socket(0x1_0000_0028) is AF_VSOCK (measured; CVE-2019-7303)."""
    assert base("socket", upper << 32 | family, 1, 0) == "EPERM"


def conditioned() -> list[tuple[Rule, Condition]]:
    return [(rule, condition) for rule in WIDEST.rules for condition in rule.conditions]


@pytest.mark.parametrize(("rule", "condition"), conditioned(), ids=lambda value: getattr(value, "call", None))
def test_no_rule_lets_the_upper_half_of_an_argument_through(rule: Rule, condition: Condition) -> None:
    """Every rule of every group: the arguments that it allows, with one bit of one upper half set."""
    arguments = [ALL_BITS] * 6  # so that no other alternative of the same call holds
    for own in rule.conditions:
        arguments[own.argument] = own.value
    call_number = number(rule.call)
    assert bpf.outcome(WIDEST_PROGRAM, NATIVE, call_number, arguments) == "allow"
    for bit in range(32, 64):
        changed = list(arguments)
        changed[condition.argument] |= 1 << bit
        assert bpf.outcome(WIDEST_PROGRAM, NATIVE, call_number, changed) == "EPERM"


@pytest.mark.parametrize(
    ("call", "arguments", "expected"),
    [
        ("ioctl", (0, 0x5401), "allow"),  # TCGETS
        ("ioctl", (0, 0x5413), "allow"),  # TIOCGWINSZ
        ("ioctl", (0, 0x541B), "allow"),  # FIONREAD
        ("ioctl", (0, 0x5421), "allow"),  # FIONBIO
        ("ioctl", (0, 0x5412), "EPERM"),  # TIOCSTI
        ("ioctl", (0, 0x541C), "EPERM"),  # TIOCLINUX
        ("ioctl", (0, 0x1_0000_5412), "EPERM"),
        ("ioctl", (0, 0x8913), "EPERM"),  # SIOCGIFFLAGS
        ("prctl", (15,), "allow"),  # PR_SET_NAME
        ("prctl", (4, 1), "EPERM"),  # PR_SET_DUMPABLE
        ("prctl", (1, 0), "EPERM"),  # PR_SET_PDEATHSIG
        ("prctl", (22, 2), "EPERM"),  # PR_SET_SECCOMP
        ("prctl", (38, 1), "EPERM"),  # PR_SET_NO_NEW_PRIVS
        ("prctl", (36, 1), "EPERM"),  # PR_SET_CHILD_SUBREAPER
        ("prctl", (0x59616D61, ALL_BITS), "EPERM"),  # PR_SET_PTRACER
        ("personality", (0xFFFFFFFF,), "allow"),
        ("personality", (0x0040000,), "EPERM"),  # ADDR_NO_RANDOMIZE
        ("personality", (ALL_BITS,), "EPERM"),
        ("prlimit64", (0, 7, 0, 0x7F0000000000), "allow"),
        ("prlimit64", (0, 7, 0x7F0000000000, 0), "EPERM"),
        ("prlimit64", (0, 7, 1 << 63, 0), "EPERM"),
        ("fchmod", (3, 0o755), "allow"),
        ("fchmod", (3, 0o1777), "allow"),
        ("fchmod", (3, 0o4755), "EPERM"),
        ("fchmod", (3, 0o2755), "EPERM"),
        ("fchmodat", (0, 0, 0o644), "allow"),
        ("fchmodat", (0, 0, 0o6644), "EPERM"),
        ("fchmodat2", (0, 0, 0o644, 0x100), "allow"),
        ("fchmodat2", (0, 0, 0o4644, 0x100), "EPERM"),
        ("openat", (0, 0, 0o0, 0o4755), "allow"),  # the mode is not read
        ("openat", (0, 0, 0o102, 0o644), "allow"),
        ("openat", (0, 0, 0o102, 0o4755), "EPERM"),
        ("openat", (0, 0, 0o102, 0o2755), "EPERM"),
        ("openat", (0, 0, 0o20200002, 0o4755), "EPERM"),  # O_TMPFILE
        ("setsockopt", (3, 1, 7), "allow"),  # SO_SNDBUF
        ("setsockopt", (3, 1, 26), "EPERM"),  # SO_ATTACH_FILTER
        ("setsockopt", (3, 1, 50), "EPERM"),  # SO_ATTACH_BPF
        ("setsockopt", (3, 1, 51), "EPERM"),  # SO_ATTACH_REUSEPORT_CBPF
        ("setsockopt", (3, 6, 7), "EPERM"),  # another level
        ("execve", (), "EPERM"),
        ("execveat", (), "EPERM"),
        ("memfd_create", (), "EPERM"),
    ],
)
def test_arguments_under_the_base_policy(call: str, arguments: tuple[int, ...], expected: str) -> None:
    assert base(call, *arguments) == expected


def test_programs_start_only_where_the_policy_lets_them() -> None:
    program = libseccomp.compile(filter_for(some_policy(exec=True), TABLE))
    assert bpf.outcome(program, NATIVE, number("execve")) == "allow"
    assert bpf.outcome(program, NATIVE, number("execveat")) == "allow"


# ---- the reaper


def test_the_reaper_dies_of_anything_that_is_not_its_business() -> None:
    def reaper(call: str, *arguments: int) -> str:
        return bpf.outcome(REAPER_PROGRAM, NATIVE, number(call), arguments)

    assert [reaper(call) for call in ("read", "write", "wait4", "exit_group", "ppoll", "close")] == ["allow"] * 6
    for call in ("openat", "socket", "clone", "execve", "kill", "connect", "sendmsg", "fcntl", "ptrace", "clone3"):
        assert reaper(call) == "kill-process"
    assert reaper("mmap", 0, 4096, 0x3) == "allow"
    assert reaper("mmap", 0, 4096, 0x7) == "kill-process"
    assert reaper("mprotect", 0, 4096, 0x5) == "kill-process"


# ---- the compiler

INTERESTING = sorted(
    {
        value
        for rule in WIDEST.rules
        for c in rule.conditions
        for value in (c.value, c.mask & 0xFFFFFFFF, c.value | 1 << 32)
    }
    | {0, 1, 2, 40, 0xFFFFFFFF, ALL_BITS, UPPER_HALF}
)
NUMBERS = st.one_of(
    st.sampled_from(sorted({number(rule.call) for rule in WIDEST.rules if rule.conditions})),
    st.integers(0, NEWEST + 2),
    st.integers(0, 0xFFFFFFFF),
)
ARGUMENTS = st.tuples(*[st.one_of(st.sampled_from(INTERESTING), st.integers(0, ALL_BITS))] * 6)


@settings(max_examples=500)
@given(call_number=NUMBERS, arguments=ARGUMENTS)
def test_the_program_does_what_the_filter_says(call_number: int, arguments: tuple[int, ...]) -> None:
    for filter, program in ((BASE, BASE_PROGRAM), (WIDEST, WIDEST_PROGRAM), (REAPER, REAPER_PROGRAM)):
        assert bpf.outcome(program, NATIVE, call_number, arguments) == decide(filter, call_number, arguments)


VALUES = [0, 1, 2, 3, 40, 0x40, 0x42, 0xC00]
CONDITIONS = st.builds(
    lambda argument, mask, value: Condition(argument=argument, mask=mask | UPPER_HALF, value=value & mask),
    st.integers(0, 5),
    st.sampled_from([0x3, 0x40, 0xC00, 0xFFFFFFFF]),
    st.sampled_from(VALUES),
)
RULES = st.builds(
    lambda call, conditions: Rule(call=call, action=ALLOW, conditions=tuple(conditions)),
    st.sampled_from(["openat", "ioctl", "socket"]),
    # libseccomp takes one condition per argument.
    st.lists(CONDITIONS, min_size=1, max_size=3, unique_by=lambda condition: condition.argument),
)


@settings(max_examples=150)
@given(
    rules=st.lists(RULES, min_size=1, max_size=6, unique=True),
    tries=st.lists(
        st.tuples(*[st.sampled_from([*VALUES, 1 << 32, 1 << 32 | 1, 1 << 63])] * 6), min_size=20, max_size=20
    ),
)
def test_alternatives_that_overlap_stay_alternatives(rules: list[Rule], tries: list[tuple[int, ...]]) -> None:
    """libseccomp folds rules for one call into one tree; none may swallow or widen another."""
    newest = Newest(name="file_setattr", number=469, kernel="6.17")
    filter = SyscallFilter(default=refuse(errno.EPERM), newest=newest, rules=tuple(rules))
    program = libseccomp.compile(filter)
    for call, arguments in itertools.product(("openat", "ioctl", "socket"), tries):
        assert bpf.outcome(program, NATIVE, number(call), arguments) == decide(filter, number(call), arguments)


def test_the_programs_are_far_from_the_kernels_bound() -> None:
    assert len(WIDEST_PROGRAM) // 8 < 500
    assert len(REAPER_PROGRAM) // 8 < 100


def test_the_same_filter_compiles_to_the_same_program() -> None:
    assert libseccomp.compile(BASE) == BASE_PROGRAM


@pytest.mark.parametrize(
    ("default", "expected"),
    [(LOG, "log"), (TRAP, "trap"), (KILL_PROCESS, "kill-process"), (refuse(errno.EACCES), "EACCES")],
)
def test_any_action_can_be_the_default(default: Action, expected: str) -> None:
    filter = SyscallFilter(
        default=default,
        newest=Newest(name="file_setattr", number=469, kernel="6.17"),
        rules=(Rule(call="read", action=ALLOW), Rule(call="openat", action=NOTIFY)),
    )
    program = libseccomp.compile(filter)
    assert bpf.outcome(program, NATIVE, number("read")) == "allow"
    assert bpf.outcome(program, NATIVE, number("openat")) == "notify"
    assert bpf.outcome(program, NATIVE, number("ptrace")) == expected
    assert bpf.outcome(program, NATIVE, 470) == "ENOSYS"


def with_name(name: str, *, optional: bool = False, call_number: int | None = None) -> SyscallFilter:
    rule = Rule(call=name, action=ALLOW, optional=optional, number=call_number)
    newest = Newest(name="file_setattr", number=469, kernel="6.17")
    return SyscallFilter(default=refuse(errno.EPERM), newest=newest, rules=(rule, Rule(call="read", action=ALLOW)))


def test_a_name_that_libseccomp_does_not_know_is_an_error() -> None:
    with pytest.raises(HostError, match="does not know the system call raed"):
        libseccomp.compile(with_name("raed"))


def test_an_optional_name_that_libseccomp_does_not_know_is_left_out() -> None:
    program = libseccomp.compile(with_name("raed", optional=True))
    assert bpf.outcome(program, NATIVE, number("read")) == "allow"


def test_a_name_that_libseccomp_does_not_know_may_bring_its_number() -> None:
    """463 is setxattrat of Linux 6.13, which libseccomp 2.5.4 has never heard of."""
    program = libseccomp.compile(with_name("a_name_of_2030", call_number=463))
    assert bpf.outcome(program, NATIVE, 463) == "allow"
    assert bpf.outcome(program, NATIVE, 462) == "EPERM"


def test_a_missing_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    libseccomp._library.cache_clear()
    monkeypatch.setattr("runagentd.supervise.libseccomp.ctypes.CDLL", missing)
    with pytest.raises(HostError) as caught:
        libseccomp.version()
    assert str(caught.value) == "libseccomp.so.2 is missing\nhint: install the package libseccomp2"
    monkeypatch.undo()
    libseccomp._library.cache_clear()
    assert libseccomp.version() >= (2, 5, 0)


def test_jumps_of_the_prologue_reach_the_program_behind_it() -> None:
    """Every number from 0 to the newest is decided by libseccomp's part, the rest never gets there."""
    nothing = SyscallFilter(
        default=refuse(errno.EACCES),
        newest=Newest(name="x", number=3, kernel="1"),
        rules=(Rule(call="read", action=KILL_PROCESS),),
    )
    program = libseccomp.compile(nothing)
    seen = [bpf.outcome(program, NATIVE, one) for one in itertools.chain(range(6))]
    read = number("read")
    assert seen == ["kill-process" if one == read else "EACCES" if one <= 3 else "ENOSYS" for one in range(6)]
