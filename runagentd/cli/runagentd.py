"""The command `runagentd`: serve folders with agents in the foreground.

Runs as: root.
Reads from strangers: nothing.
"""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from pathlib import Path

from runagentd import state
from runagentd.config import load
from runagentd.errors import HostError
from runagentd.foreman import scope
from runagentd.foreman.serve import ServeOptions, serve
from runagentd.log import complain
from runagentd.policy.files import shipped_names
from runagentd.wire.admin import PolicyChoice


def main() -> int:
    """The exit status: 0 after a clean end, 1 where something cannot be served, 2 for a wrong command line."""
    parser = argparse.ArgumentParser(
        prog="runagentd", description="Run Python agents in sandboxes behind an authenticated API."
    )
    parser.add_argument("--version", action="version", version=f"runagentd {version('runagentd')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser("serve", help="serve folders with agents, and what is deployed, until Ctrl+C")
    command.add_argument(
        "folders",
        nargs="*",
        type=Path,
        metavar="DIR",
        help="a folder with a runagent.config.json; without one, what 'runagentctl deploy' has deployed is served",
    )
    command.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    command.add_argument("--port", type=_port, default=8450, help="port to listen on, 0 for any (default: %(default)s)")
    command.add_argument(
        "--policy",
        action="append",
        default=[],
        type=policy_choice,
        metavar="[AGENT=]NAME|FILE",
        help="policy of one agent, or of all others (default: base); may be repeated",
    )
    command.add_argument("--config", type=Path, metavar="FILE", help=f"default: {load.DEFAULT} where it is there")
    command.add_argument("--state-dir", type=Path, default=Path(state.DEFAULT), help="default: %(default)s")
    command.add_argument("--ready-file", type=Path, help="written once all is up: JSON with url, token and agents")
    command.add_argument(
        "--spares", type=_spares, default=1, help="sandboxes kept ready in advance (default: %(default)s)"
    )
    command.add_argument(
        "--standbys", type=_spares, default=4,
        help="agents that started last whose next sandbox is kept at its gate (default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--reload", action="store_true", help="serve an agent anew when its folder or its policy file changes"
    )
    command.add_argument("--log-format", choices=("text", "json"), default="text")
    command.add_argument("-v", "--verbose", action="store_true", help="log every call")
    arguments = parser.parse_args()
    if not arguments.folders and (arguments.policy or arguments.reload):
        parser.error("--policy and --reload are for folders, and none is given: 'runagentctl deploy' chooses policies")
    try:
        scope.enter()
    except HostError as error:
        complain(f"runagentd: {error}")
        return 1
    return serve(
        ServeOptions(
            folders=tuple(arguments.folders),
            host=arguments.host,
            port=arguments.port,
            policies=tuple(arguments.policy),
            state_dir=arguments.state_dir,
            ready_file=arguments.ready_file,
            reload=arguments.reload,
            log_format=arguments.log_format,
            verbose=arguments.verbose,
            spares=arguments.spares,
            standbys=arguments.standbys,
            config=load.configured(arguments.config),
        )
    )


def policy_choice(text: str) -> PolicyChoice:
    """`[AGENT=]NAME|FILE`."""
    agent, equals, policy = text.rpartition("=")
    if not policy or (equals and not agent):
        raise argparse.ArgumentTypeError(f"{text!r} is not [AGENT=]NAME|FILE")
    return PolicyChoice(agent=agent, policy=policy_name(policy))


def policy_name(text: str) -> str:
    """`NAME|FILE`; a file's path becomes absolute, since the daemon has another working directory."""
    if text in shipped_names():
        return text
    path = Path(text).absolute()
    if not path.is_file():
        shipped = ", ".join(sorted(shipped_names()))
        raise argparse.ArgumentTypeError(f"{text!r} is neither a file nor one of {shipped}")
    return str(path)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def _spares(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 64:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 64")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
