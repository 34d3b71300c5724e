"""A rehearsal is a whole start with its calls, and leaves nothing of itself behind."""

from __future__ import annotations

import json
import subprocess
import textwrap
from pathlib import Path
from typing import Any

from runagentd.wire.channel import FROM_RUNNER, Frame, Splitter
from tests import tried

ROOT = Path(__file__).resolve().parents[2]


def run(code: str) -> Any:
    """What `code` prints as JSON, in an interpreter like the zygote's. Any: JSON."""
    start = f"import json, os, sys; sys.path.append({str(ROOT)!r})\n"
    done = subprocess.run(
        [tried.PYTHON, "-I", "-S", "-E", "-B", "-c", start + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_it_plays_a_start_and_every_kind_of_call() -> None:
    """A rehearsal that failed half-way would leave the rest of the pages to the first caller."""
    played = bytes.fromhex(
        run(
            """
            from runagentd.runner import rehearsal
            print(json.dumps(rehearsal.rehearse().hex()))
            """
        )
    )
    frames = Splitter(FROM_RUNNER).feed(played)
    assert [(frame.type, frame.call) for frame in frames] == [
        (Frame.HELLO, 0),
        (Frame.DESCRIBE, 0),
        (Frame.RESULT, 1),
        (Frame.RESULT, 2),
        (Frame.CHUNK, 3),
        (Frame.CHUNK, 3),
        (Frame.END, 3),
    ]
    assert json.loads(frames[2].body)["text"] == "Hello you! Hello you!"


def test_it_leaves_nothing_that_an_agent_could_find() -> None:
    """Modules, paths, streams, environment, folder, handlers, descriptors and threads are as before."""
    before, after = run(
        """
        import signal, threading, asyncio
        from runagentd.runner import rehearsal

        def look():
            return [
                sorted(sys.modules), list(sys.path), [repr(f) for f in sys.meta_path], sorted(sys.path_importer_cache),
                sys.argv, sys.orig_argv, [id(getattr(sys, n)) for n in ("stdin", "stdout", "stderr", "__stdout__")],
                dict(os.environ), os.getcwd(), [str(signal.getsignal(n)) for n in range(1, 32)],
                sorted(os.listdir("/proc/self/fd")), threading.active_count(), sorted(signal.sigpending()),
            ]

        rehearsal.rehearse()  # the first one imports what it needs: the zygote's does, before anything is forked
        before = look()
        rehearsal.rehearse()
        print(json.dumps([before, look()]))
        """
    )
    assert before == after


def test_it_can_be_played_with_all_signals_blocked_as_in_a_spare() -> None:
    """And the signal that the channel sent is not waiting for the agent's handlers."""
    assert run(
        """
        import signal
        from runagentd.runner import rehearsal
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        played = rehearsal.rehearse()
        print(json.dumps([len(played) > 500, sorted(signal.sigpending())]))
        """
    ) == [True, []]
