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
from runagentd.cli import ctl_credentials, ctl_deploying, ctl_watching
from runagentd.cli.subcommands import add_command, policy_name
from runagentd.errors import ConfigurationError, HostError
from runagentd.log import complain, printing


def main() -> int:
    """The exit status: 0 done, 1 the answer is no, 2 wrong use."""
    return printing(_main, name="runagentctl")


def _main() -> int:
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
    common, lines = argparse.ArgumentParser(add_help=False), argparse.ArgumentParser(add_help=False)
    for parser, said in ((common, "print JSON"), (lines, "print JSON, an object a line")):
        parser.add_argument("--state-dir", type=Path, default=Path(state.DEFAULT), help="default: %(default)s")
        parser.add_argument("--json", action="store_true", help=said)
    parser = argparse.ArgumentParser(prog="runagentctl", description="Look after a running runagentd.")
    parser.add_argument("--version", action="version", version=f"runagentctl {version('runagentd')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    ctl_watching.add(commands, common, lines)
    ctl_deploying.add(commands, common)
    ctl_credentials.add(commands, common)

    cache = add_command(commands, "cache", help="answers that are kept").add_subparsers(
        required=True, metavar="COMMAND"
    )
    command = add_command(cache, "stats", parents=[common], help="what is kept, and how often that helped")
    command.set_defaults(run=_cache, purge=False, agent="", tag="")
    command = add_command(cache, "purge", parents=[common], help="throw kept answers away")
    command.add_argument("--agent", default="", help="those of this agent only")
    command.add_argument("--tag", default="", help="those of this entrypoint only")
    command.set_defaults(run=_cache, purge=True)

    ctl_credentials.add_signing_keys(commands, common)

    policy = add_command(commands, "policy", help="look at policies").add_subparsers(required=True, metavar="COMMAND")
    command = add_command(policy, "check", parents=[common], help="say whether a policy file is right")
    command.add_argument("file", metavar="NAME|FILE", help="a shipped policy, or a file")
    command.set_defaults(run=_policy_check)
    command = add_command(
        policy, "explain", parents=[common], help="each step of the sandbox, and the key that asks for it"
    )
    command.add_argument("policy", type=policy_name, metavar="NAME|FILE")
    command.set_defaults(run=_policy_explain)
    command = add_command(
        policy,
        "diff",
        parents=[common],
        help="where one policy differs from another, and whether it allows more",
        description="Each key that B has otherwise than A: wider (it allows more), narrower, other (neither allows all "
        "that the other does), or same (written otherwise).",
        epilog="Exit status: 0 if B allows nothing that A does not, 1 if it does (a key is wider or other), 2 if "
        "either cannot be used.",
    )
    command.add_argument("a", metavar="A", help="a shipped policy, or a file")
    command.add_argument("b", metavar="B", help="likewise")
    command.set_defaults(run=_policy_diff)

    command = add_command(commands, "schema", help="the JSON Schema of a file, for editors")
    command.add_argument(
        "of",
        choices=("policy", "config", "agent", "agent-file"),
        metavar="policy|config|agent|agent-file",
        help="a policy's file, runagentd.toml, an agent's runagent.config.json, or a file for 'apply'",
    )
    command.set_defaults(run=_schema)

    command = add_command(
        commands, "doctor", parents=[common], help="what this machine offers, and a sandbox that proves it"
    )
    command.add_argument("--config", type=Path, metavar="FILE", help="look at its [runtimes], too")
    command.set_defaults(run=_doctor)
    return parser


def _cache(arguments: argparse.Namespace) -> int:
    from runagentd.cli import cache_commands

    return cache_commands.show(
        state.open_existing(arguments.state_dir),
        purge=arguments.purge,
        agent=arguments.agent,
        tag=arguments.tag,
        as_json=arguments.json,
    )


def _policy_check(arguments: argparse.Namespace) -> int:
    from runagentd.cli import policy_commands

    return policy_commands.check(arguments.file, arguments.json)


def _policy_explain(arguments: argparse.Namespace) -> int:
    from runagentd.cli import explain_commands

    return explain_commands.explain(arguments.policy, as_json=arguments.json)


def _policy_diff(arguments: argparse.Namespace) -> int:
    from runagentd.cli import policy_commands

    return policy_commands.diff(arguments.a, arguments.b, arguments.json)


def _schema(arguments: argparse.Namespace) -> int:
    from runagentd.cli import schema_commands

    return schema_commands.print_schema(arguments.of)


def _doctor(arguments: argparse.Namespace) -> int:
    from runagentd.cli import doctor_commands
    from runagentd.config import load

    return doctor_commands.doctor(config=load.configured(arguments.config), as_json=arguments.json)


if __name__ == "__main__":
    sys.exit(main())
