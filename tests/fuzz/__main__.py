"""`make fuzz`: each parser of ours for a while, led by what its inputs reach (atheris, libFuzzer).

Runs as: anybody, in an environment of its own (.venv-fuzz). Each parser in a process of its own, with bounds on memory
and on the time of one input.
Reads from strangers: bytes that nobody has thought of, which is the point.

A finding is an exception that is not the parser's own error, or an input that takes too long. Its input is written to
the folder that is printed; as a literal row in tests/fuzz/test_findings.py it stays. Exits 1 where there is one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

MEMORY_BYTES_MAX = 2 * 1024**3
INPUT_SECONDS_MAX = 10
INPUT_BYTES_MAX = 4096
WORDS = (
    "null", "true", "false", "0", "-1", "1e999", "1" * 60, "{}", "[]", '""', '"\\ud800"', "[" * 60, '{"a":' * 12,
    "\r\n", "\0", "%00", "%", "*", ": ", "chunked", "Bearer ", "\xff\xff\xff\xff", "\x80\0\0\0", "..",
    "${A}", "&a", "<<:",
)  # fmt: skip
"""What parsers trip over, for the fuzzer to put in."""
VALUES: tuple[object, ...] = (
    None, True, False, 0, -1, 1.5, 2**63, 10**40, 1e308, "", "x", "\ud800", "\0", "\x1b[31m", "1", "2026-01-01", [], {},
    [[]], {"": {}}, [None], ["x", "x"], {"x": "y"}, "x" * 300,
)  # fmt: skip
"""What grows where something else was expected."""
_RUNS = re.compile(rb"stat::number_of_executed_units:\s*(\d+)")
_COVERED = re.compile(rb"cov: (\d+)")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=60, help="for each parser (default: %(default)s)")
    parser.add_argument("--parser", default="", help="one only")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("options", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here is not None:
        fuzz(options.parser, options.here, options.options)
        return 0
    from tests.fuzz.targets import TARGETS

    names = [options.parser] if options.parser else list(TARGETS)
    if not set(names) <= set(TARGETS):
        print(f"there is no parser {options.parser!r}; there are {', '.join(TARGETS)}")
        return 2
    findings = Path(tempfile.mkdtemp(prefix="runagentd-fuzz-"))
    found = [name for name in names if one(name, options.seconds, findings)]
    if not found:
        findings.rmdir()
        return 0
    print(f"\nfindings in {', '.join(found)}; their inputs are in {findings}")
    return 1


def one(name: str, seconds: int, findings: Path) -> bool:
    """Fuzz one parser; whether there was a finding. Prints a line, and what a finding was."""
    from tests.fuzz.targets import TARGETS

    with tempfile.TemporaryDirectory(prefix="runagentd-corpus-") as corpus, tempfile.NamedTemporaryFile() as words:
        for seed in TARGETS[name].seeds:
            (Path(corpus) / hashlib.sha256(seed).hexdigest()).write_bytes(seed)
        words.write(b"".join(_quoted(word) for word in WORDS))
        words.flush()
        command = [
            sys.executable, "-m", "tests.fuzz", "--here", str(findings), "--parser", name, "--", corpus,
            f"-max_total_time={seconds}", f"-timeout={INPUT_SECONDS_MAX}", f"-max_len={INPUT_BYTES_MAX}",
            "-rss_limit_mb=0", f"-dict={words.name}", f"-artifact_prefix={findings}/{name}-", "-print_final_stats=1",
        ]  # fmt: skip
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    runs, covered = _RUNS.findall(done.stdout), _COVERED.findall(done.stdout)
    told = f"{int(runs[-1]):>10,} inputs  {int(covered[-1]):>6,} edges" if runs and covered else "nothing was run"
    bad = done.returncode != 0
    print(f"{name:20} {told}  {'FINDING' if bad else 'no finding'}", flush=True)
    if bad:
        print(done.stdout.decode("utf-8", "replace")[-3000:])
    return bad


def _quoted(word: str) -> bytes:
    """As libFuzzer's dictionaries have it."""
    return b'"%b"\n' % "".join(f"\\x{byte:02x}" for byte in word.encode("latin-1")).encode()


def fuzz(name: str, findings: Path, arguments: Sequence[str]) -> None:
    """Be the process that fuzzes; libFuzzer ends it."""
    import atheris

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    with atheris.instrument_imports(include=["runagentd"]):
        from tests.fuzz.targets import run

    def one_input(data: bytes) -> None:
        try:
            run(name, data)
        except BaseException:
            # By ourselves: libFuzzer does not always come to it, and has a prefix of its own for what takes too long.
            (findings / f"{name}-{hashlib.sha256(data).hexdigest()[:16]}").write_bytes(data)
            raise

    def mutated(data: bytes, bytes_max: int, seed: int) -> bytes:
        """What is JSON is changed as a tree half of the time: a byte that is changed leaves no JSON, as a rule."""
        chance = random.Random(seed)
        if chance.random() < 0.5:
            try:
                changed = json.dumps(grafted(json.loads(data), chance)).encode()
            except (ValueError, RecursionError):
                pass
            else:
                if len(changed) <= bytes_max:
                    return changed
        return bytes(atheris.Mutate(data, bytes_max))

    atheris.Setup([sys.argv[0], *arguments], one_input, custom_mutator=mutated)
    atheris.Fuzz()


def grafted(value: object, chance: random.Random) -> object:
    """The same tree with another value somewhere, or with a branch more or fewer."""
    if isinstance(value, list | dict) and value and chance.random() < 0.85:
        if isinstance(value, list):
            place = chance.randrange(len(value))
            grown = grafted(value[place], chance)
            return [*value[:place], grown, *value[place + (chance.random() < 0.9) :]]
        name = chance.choice(list(value))
        if chance.random() < 0.1:
            return {other: kept for other, kept in value.items() if other != name}
        return {**value, name: grafted(value[name], chance)}
    return chance.choice(VALUES)


if __name__ == "__main__":
    sys.exit(main())
