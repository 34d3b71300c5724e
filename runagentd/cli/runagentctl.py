"""The command `runagentctl`: everything an operator does. Each subcommand imports only what it needs.

Runs as: root, or who can read what it is asked for (`policy check` needs no privilege).
Reads from strangers: nothing here; commands that show what agents wrote give up their privileges first.
"""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from pathlib import Path

from runagentd import state
from runagentd.errors import ConfigurationError, HostError
from runagentd.log import complain


def main() -> int:
    """The exit status: 0 done, 1 the answer is no, 2 wrong use."""
    arguments = _parser().parse_args()
    try:
        status: int = arguments.run(arguments)
        return status
    except (ConfigurationError, HostError) as error:
        complain(f"runagentctl: {error}")
        return 1
    except PermissionError as error:
        complain(f"runagentctl: {error.filename}: permission denied\nhint: run this as root")
        return 1
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--state-dir", type=Path, default=Path(state.DEFAULT), help="default: %(default)s")
    common.add_argument("--json", action="store_true", help="print JSON")
    parser = argparse.ArgumentParser(prog="runagentctl", description="Look after a running runagentd.")
    parser.add_argument("--version", action="version", version=f"runagentctl {version('runagentd')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = commands.add_parser("ps", parents=[common], help="what runs")
    command.set_defaults(run=_ps)

    command = commands.add_parser("logs", parents=[common], help="what an agent printed")
    command.add_argument("agent", metavar="AGENT")
    command.add_argument("-f", "--follow", action="store_true", help="go on with new lines until Ctrl+C")
    command.set_defaults(run=_logs)

    command = commands.add_parser("restart", parents=[common], help="end an agent's instance and start another at once")
    command.add_argument("agent", metavar="AGENT")
    command.set_defaults(run=_restart)

    command = commands.add_parser("check", parents=[common], help="load and check a folder without serving it")
    command.add_argument("folder", type=Path, metavar="DIR")
    command.add_argument("--policy", default="base", type=_policy_name, metavar="NAME|FILE")
    command.set_defaults(run=_check)

    token = commands.add_parser("token", help="make tokens").add_subparsers(required=True, metavar="COMMAND")
    command = token.add_parser("create", parents=[common], help="print a new token, alone, on stdout")
    command.add_argument("--subject", required=True, help="who will call")
    command.add_argument(
        "--agent",
        action="append",
        help="an agent that may be called; may be repeated (default: all, or none with --role)",
    )
    command.add_argument("--role", action="append", default=[], help="a role of runagentd.toml; may be repeated")
    command.add_argument("--scope", action="append", default=[], help="such as agents:invoke:chat/ask; may be repeated")
    command.add_argument("--ttl", default="1h", metavar="30s|15m|1h|7d", help="default: %(default)s")
    command.set_defaults(run=_token_create)

    policy = commands.add_parser("policy", help="look at policies").add_subparsers(required=True, metavar="COMMAND")
    command = policy.add_parser("check", parents=[common], help="say whether a policy file is right")
    command.add_argument("file", metavar="FILE")
    command.set_defaults(run=_policy_check)
    command = policy.add_parser(
        "explain", parents=[common], help="each step of the sandbox, and the key that asks for it"
    )
    command.add_argument("policy", type=_policy_name, metavar="NAME|FILE")
    command.set_defaults(run=_policy_explain)

    command = commands.add_parser(
        "doctor", parents=[common], help="what this machine offers, and a sandbox that proves it"
    )
    command.set_defaults(run=_doctor)
    return parser


def _policy_name(text: str) -> str:
    from runagentd.cli.runagentd import policy_name

    return policy_name(text)


def _ps(arguments: argparse.Namespace) -> int:
    from runagentd.cli import ps_commands

    return ps_commands.ps(state.open_existing(arguments.state_dir), as_json=arguments.json)


def _restart(arguments: argparse.Namespace) -> int:
    from runagentd.cli import ps_commands

    return ps_commands.restart(state.open_existing(arguments.state_dir), arguments.agent, as_json=arguments.json)


def _logs(arguments: argparse.Namespace) -> int:
    from runagentd.cli import logs_commands

    directory = state.open_existing(arguments.state_dir)
    return logs_commands.logs(directory, arguments.agent, follow=arguments.follow, as_json=arguments.json)


def _check(arguments: argparse.Namespace) -> int:
    from runagentd.cli import check_commands

    return check_commands.check(arguments.folder, policy=arguments.policy, as_json=arguments.json)


def _token_create(arguments: argparse.Namespace) -> int:
    from runagentd.cli import token_commands

    directory = state.open_existing(arguments.state_dir)
    return token_commands.create(
        subject=arguments.subject,
        agents=arguments.agent,
        ttl=arguments.ttl,
        keys_dir=str(directory.keys),
        state_id=directory.id,
        grants=[*arguments.scope, *(f"role:{role}" for role in arguments.role)],
        as_json=arguments.json,
    )


def _policy_check(arguments: argparse.Namespace) -> int:
    from runagentd.cli import policy_commands

    return policy_commands.check(arguments.file, arguments.json)


def _policy_explain(arguments: argparse.Namespace) -> int:
    from runagentd.cli import explain_commands

    return explain_commands.explain(arguments.policy, as_json=arguments.json)


def _doctor(arguments: argparse.Namespace) -> int:
    from runagentd.cli import doctor_commands

    return doctor_commands.doctor(as_json=arguments.json)


if __name__ == "__main__":
    sys.exit(main())
