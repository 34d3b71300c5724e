"""A small interpreter of classic BPF, as the kernel runs it over a system call (seccomp(2), struct seccomp_data).

It was written from the kernel's Documentation/networking/filter.rst and shares no code with what it checks.
Only the instructions that a filter may hold are known; any other raises, as the kernel refuses it.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence

_ACTIONS = {
    0x80000000: "kill-process",
    0x00000000: "kill-thread",
    0x00030000: "trap",
    0x7FC00000: "notify",
    0x7FF00000: "trace",
    0x7FFC0000: "log",
    0x7FFF0000: "allow",
}


def outcome(program: bytes, arch: int, number: int, arguments: Sequence[int] = ()) -> str:
    """What the kernel does with a call: "allow", "kill-process", ..., or the name of the errno it answers."""
    result = run(program, seccomp_data(arch, number, arguments))
    action, value = result & 0xFFFF0000, result & 0xFFFF
    return errno.errorcode[value] if action == 0x00050000 else _ACTIONS[action]


def seccomp_data(arch: int, number: int, arguments: Sequence[int] = ()) -> bytes:
    padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    return struct.pack(
        "<IIQ6Q", number & 0xFFFFFFFF, arch, 0x7F0000001000, *(value & (1 << 64) - 1 for value in padded)
    )


def run(program: bytes, data: bytes) -> int:
    """The 32-bit word that the program returns."""
    lines = list(struct.iter_unpack("<HBBI", program))
    accumulator = index = position = 0
    while True:
        code, if_true, if_false, k = lines[position]
        position += 1
        match code:
            case 0x20:  # BPF_LD | BPF_W | BPF_ABS
                if k % 4 or k + 4 > len(data):
                    raise ValueError(f"instruction {position - 1} loads from {k}")
                (accumulator,) = struct.unpack_from("<I", data, k)
            case 0x00:  # BPF_LD | BPF_IMM
                accumulator = k
            case 0x01:  # BPF_LDX | BPF_IMM
                index = k
            case 0x07:  # BPF_MISC | BPF_TAX
                index = accumulator
            case 0x87:  # BPF_MISC | BPF_TXA
                accumulator = index
            case 0x54:  # BPF_ALU | BPF_AND | BPF_K
                accumulator &= k
            case 0x5C:  # BPF_ALU | BPF_AND | BPF_X
                accumulator &= index
            case 0x44:  # BPF_ALU | BPF_OR | BPF_K
                accumulator |= k
            case 0x05:  # BPF_JMP | BPF_JA
                position += k
            case 0x15:  # BPF_JMP | BPF_JEQ
                position += if_true if accumulator == k else if_false
            case 0x25:  # BPF_JMP | BPF_JGT
                position += if_true if accumulator > k else if_false
            case 0x35:  # BPF_JMP | BPF_JGE
                position += if_true if accumulator >= k else if_false
            case 0x45:  # BPF_JMP | BPF_JSET
                position += if_true if accumulator & k else if_false
            case 0x06:  # BPF_RET | BPF_K
                return int(k)
            case 0x16:  # BPF_RET | BPF_A
                return int(accumulator)
            case _:
                raise ValueError(f"instruction {position - 1} is unknown: {code:#x}")
