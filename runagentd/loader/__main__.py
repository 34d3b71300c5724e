"""The loader: confine itself, turn one folder into a manifest, write that to stdout, end. Thrown away each time.

Runs as: root until it has imported everything and given everything up; then a uid that owns nothing, without network,
processes or any file but the folder's.
Reads from strangers: an agent's files, which is what all this is for. It answers with one LoadReport on stdout.
"""

from __future__ import annotations

import argparse
import os
import sys

from runagentd.loader import configuration, confine
from runagentd.loader.folder import OpenFolder
from runagentd.wire import record
from runagentd.wire.manifest import LoadProblem, LoadReport


def main(arguments: list[str] | None = None) -> int:
    """`--uid N --gid N [--folder-fd N]`; the exit status is 0 when a report was written."""
    parser = argparse.ArgumentParser(prog="runagentd-loader")
    parser.add_argument("--uid", type=int, required=True)
    parser.add_argument("--gid", type=int, required=True)
    parser.add_argument("--folder-fd", type=int, default=3)
    options = parser.parse_args(arguments)
    # Codecs are modules that the first use imports; none can be imported once the files are out of reach.
    b"{}".decode("utf-8-sig")
    folder, output = options.folder_fd, sys.stdout.fileno()
    try:
        confine.confine(folder, output, uid=options.uid, gid=options.gid)
    except (OSError, ValueError, confine.NotConfined) as error:
        problem = LoadProblem(where="", what=f"the loader could not confine itself, so it read nothing: {error}"[:400])
        _write(output, LoadReport(manifest=None, problems=(problem,)))
        return 1
    try:
        report = configuration.load(OpenFolder(folder), python=sys.version_info[:2])
    except Exception as error:  # noqa: BLE001  # a bug of ours, or a limit: it must not look like an agent without files
        what = f"the loader failed on the agent's files: {type(error).__name__}"
        report = LoadReport(manifest=None, problems=(LoadProblem(where="", what=what),))
    _write(output, report)
    return 0


def _write(output: int, report: LoadReport) -> None:
    view = memoryview(record.encode(report))
    while view:
        view = view[os.write(output, view) :]


if __name__ == "__main__":
    sys.exit(main())
