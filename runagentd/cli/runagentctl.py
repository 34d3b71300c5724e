"""The command `runagentctl`: everything an operator does. Each subcommand imports only what it needs.

Runs as: root, or who can read what it is asked for (`policy check` needs no privilege).
Reads from strangers: nothing here; commands that show what agents wrote give up their privileges first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from runagentd import state
from runagentd.errors import ConfigurationError, HostError
from runagentd.log import complain

AGENTS = "/etc/runagentd/agents"
"""Where 'apply' looks for agent files."""


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
    common, lines = argparse.ArgumentParser(add_help=False), argparse.ArgumentParser(add_help=False)
    for parser, said in ((common, "print JSON"), (lines, "print JSON, an object a line")):
        parser.add_argument("--state-dir", type=Path, default=Path(state.DEFAULT), help="default: %(default)s")
        parser.add_argument("--json", action="store_true", help=said)
    parser = argparse.ArgumentParser(prog="runagentctl", description="Look after a running runagentd.")
    parser.add_argument("--version", action="version", version=f"runagentctl {version('runagentd')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = _add(commands, "ps", parents=[common], help="what runs")
    command.set_defaults(run=_ps)

    command = _add(commands, "top", parents=[lines], help="what is busy, again and again, until Ctrl+C")
    command.add_argument("--once", action="store_true", help="one look, for scripts")
    command.set_defaults(run=_top)

    command = _add(commands, "describe", parents=[common], help="all about an agent")
    command.add_argument("agent", metavar="AGENT")
    command.set_defaults(run=_describe)

    command = _add(commands, "logs", parents=[lines], help="what an agent printed")
    command.add_argument("agent", metavar="AGENT")
    command.add_argument("-f", "--follow", action="store_true", help="go on with new lines until Ctrl+C")
    command.set_defaults(run=_logs)

    command = _add(commands, "calls", parents=[lines], help="the last calls, and those that are under way")
    command.add_argument("agent", nargs="?", default="", metavar="AGENT")
    command.add_argument("--status", default="", choices=("pending", "completed", "failed"), help="only these")
    command.add_argument("--since", metavar="30m|1h|7d", help="none that is older")
    command.add_argument("--limit", type=int, default=20, metavar="N", help="how many (default: %(default)s)")
    command.set_defaults(run=_calls)

    command = _add(commands, "events", parents=[lines], help="what has happened to agents and their instances")
    command.add_argument("agent", nargs="?", default="", metavar="AGENT")
    command.add_argument("-f", "--follow", action="store_true", help="go on with what happens until Ctrl+C")
    command.add_argument(
        "--limit", type=int, default=50, metavar="N", help="how many of the past (default: %(default)s)"
    )
    command.set_defaults(run=_events)

    command = _add(commands, "restart", parents=[common], help="end an agent's instances and start others at once")
    command.add_argument("agent", metavar="AGENT")
    command.set_defaults(run=_restart)

    command = _add(
        commands,
        "warm",
        parents=[common],
        help="have instances ready before they are called",
        description="Have that many instances ready now, before they are called. They end when fewer have been enough"
        " for the idle time of the agent's policy.",
    )
    command.add_argument("agent", metavar="AGENT")
    command.add_argument("instances", type=_count, nargs="?", default=1, metavar="N", help="how many (1)")
    command.set_defaults(run=_warm)

    command = _add(
        commands,
        "scale",
        parents=[common],
        help="change how many instances an agent may have",
        description="Change how many instances an agent may have, within what its policy allows, until the daemon "
        "starts again.",
    )
    command.add_argument("agent", metavar="AGENT")
    command.add_argument("bounds", type=_bounds, metavar="MIN:MAX", help="within its policy; N alone is both")
    command.set_defaults(run=_scale)

    command = _add(
        commands,
        "check",
        parents=[common],
        help="load and check a folder without serving it",
        description="Load and check a folder without serving it: all that 'runagentd serve' looks at, its packages "
        "among it, in a daemon that is thrown away.",
    )
    command.add_argument("folder", type=Path, metavar="DIR")
    command.add_argument(
        "--policy", default="base", type=_policy_name, metavar="NAME|FILE", help="default: %(default)s"
    )
    command.add_argument("--config", type=Path, metavar="FILE", help="as for 'runagentd serve'")
    command.set_defaults(run=_check)

    command = _add(
        commands,
        "deploy",
        parents=[common],
        help="serve a folder, or another version of an agent",
        description="Serve a folder as an agent of the running daemon, or as another version of one. The version "
        "before goes on until the new one is ready, and can be gone back to.",
    )
    command.add_argument("folder", type=Path, metavar="DIR")
    command.add_argument("--name", type=_text, help="call the agent so, whatever its folder says")
    command.add_argument(
        "--policy",
        type=_policy_name,
        metavar="NAME|FILE",
        help="default: that of the version that serves, or base",
    )
    command.add_argument("--instances", type=_bounds, metavar="MIN:MAX", help="within its policy; N alone is both")
    command.add_argument("--alias", type=_text, help="that leads to this version from now on")
    command.add_argument(
        "--allow-widening", action="store_true", help="although its policy grants more than the one that serves"
    )
    command.set_defaults(run=_deploy)

    command = _add(
        commands,
        "apply",
        parents=[common],
        help="have served what agent files say",
        description="Each file names a folder that is to serve as an agent, its policy and its aliases. Shows what "
        "would change, asks, and does it, one agent after the other.",
        epilog="Exit status: 0 if all is as the files say, 1 if not; with --dry-run 1 if there is something to do, 2 "
        "if a file cannot be used.",
    )
    command.add_argument(
        "places", nargs="*", type=Path, metavar="DIR|FILE", help=f"all *.toml of a folder (default: {AGENTS}), or one"
    )
    how = command.add_mutually_exclusive_group()
    how.add_argument("--dry-run", action="store_true", help="only show what would change")
    how.add_argument("--yes", action="store_true", help="do not ask")
    command.add_argument(
        "--prune", action="store_true", help="remove agents that a file here has made and none names any more"
    )
    command.set_defaults(run=_apply)

    command = _add(commands, "versions", parents=[common], help="the versions of an agent")
    command.add_argument("agent", metavar="AGENT")
    command.set_defaults(run=_versions)

    command = _add(commands, "rollback", parents=[common], help="have the version before serve again")
    command.add_argument("agent", metavar="AGENT")
    command.add_argument(
        "version",
        nargs="?",
        default="",
        metavar="VERSION",
        help="another one: v3, an alias, or the begin of a digest (default: the one that served before)",
    )
    command.set_defaults(run=_promote)

    command = _add(commands, "promote", parents=[common], help="have a version of an agent serve")
    command.add_argument("agent", metavar="AGENT")
    command.add_argument("version", type=_text, metavar="VERSION", help="v3, an alias, or the begin of a digest")
    command.set_defaults(run=_promote)

    command = _add(
        commands,
        "traffic",
        parents=[common],
        help="have calls go to several versions of an agent",
        description="Have calls go to several versions of an agent. The version that serves is one of them.",
    )
    command.add_argument("agent", metavar="AGENT")
    command.add_argument("shares", type=_share, nargs="+", metavar="VERSION=PERCENT", help="all of them add up to 100")
    command.add_argument(
        "--errors-max",
        type=_percent,
        default=5,
        metavar="PERCENT",
        help="a version with more failed calls gets none any more; 100 allows all (default: %(default)s)",
    )
    command.set_defaults(run=_traffic)

    command = _add(commands, "alias", parents=[common], help="give a version of an agent a name")
    command.add_argument("agent", metavar="AGENT")
    command.add_argument("alias", type=_text, metavar="ALIAS")
    command.add_argument("version", nargs="?", default="", metavar="VERSION", help="without one the alias is no more")
    command.set_defaults(run=_alias)

    command = _add(commands, "remove", parents=[common], help="forget an agent, or one version of it")
    command.add_argument("agent", metavar="AGENT")
    command.add_argument("version", nargs="?", default="", metavar="VERSION", help="one that does not serve")
    command.set_defaults(run=_remove)

    token = _add(commands, "token", help="make tokens, look at them, end them").add_subparsers(
        required=True, metavar="COMMAND"
    )
    command = _add(token, "create", parents=[common], help="print a new token, alone, on stdout")
    command.add_argument("--subject", required=True, help="who will call")
    command.add_argument(
        "--agent",
        action="append",
        help="an agent that may be called; may be repeated (default: all, or none with --role)",
    )
    command.add_argument("--role", action="append", default=[], help="a role of runagentd.toml; may be repeated")
    command.add_argument("--scope", action="append", default=[], help="such as agents:invoke:chat/ask; may be repeated")
    command.add_argument("--tenant", help="for whom the subject acts")
    command.add_argument("--ttl", default="1h", metavar="30s|15m|1h|7d", help="default: %(default)s")
    command.set_defaults(run=_token_create)
    command = _add(token, "inspect", parents=[common], help="what a token says, and whether it is good")
    command.add_argument("token", metavar="TOKEN", help="a token or an API key; - reads it from standard input")
    command.set_defaults(run=_token_inspect)
    command = _add(token, "revoke", parents=[common], help="end tokens before their time")
    command.add_argument("token", nargs="?", metavar="TOKEN|JTI", help="one token (- reads it from standard input)")
    command.add_argument("--subject", help="all that was issued to this subject, API keys too")
    command.add_argument("--before", metavar="TIME", help="issued until then: now, or 2026-11-24T12:00:00Z")
    command.set_defaults(run=_token_revoke)

    key = _add(commands, "key", help="API keys").add_subparsers(required=True, metavar="COMMAND")
    command = _add(key, "create", parents=[common], help="print a new API key, alone, on stdout, this once")
    command.add_argument("--subject", required=True, help="who will call")
    command.add_argument("--name", required=True, help="what it is for: 'key list' shows it")
    command.add_argument(
        "--agent",
        action="append",
        help="an agent that may be called; may be repeated (default: all, or none with --role)",
    )
    command.add_argument("--role", action="append", default=[], help="a role of runagentd.toml; may be repeated")
    command.add_argument("--scope", action="append", default=[], help="such as agents:invoke:chat/ask; may be repeated")
    command.add_argument("--tenant", help="for whom the subject acts")
    command.add_argument("--expires", metavar="90d", help="how long it is good (default: until it is revoked)")
    command.add_argument(
        "--address", action="append", default=[], metavar="NETWORK", help="where it may be used from; may be repeated"
    )
    command.set_defaults(run=_key_create)
    command = _add(key, "list", parents=[common], help="all API keys, without their secrets")
    command.set_defaults(run=_key_list)
    command = _add(key, "rotate", parents=[common], help="print another secret for an API key")
    command.add_argument("id", metavar="ID")
    command.add_argument(
        "--overlap", default="1d", metavar="0|1h|1d", help="how long the one before stays good (default: %(default)s)"
    )
    command.set_defaults(run=_key_rotate)
    command = _add(key, "revoke", parents=[common], help="end an API key, and what it is calling")
    command.add_argument("id", metavar="ID")
    command.set_defaults(run=_key_revoke)

    cache = _add(commands, "cache", help="answers that are kept").add_subparsers(required=True, metavar="COMMAND")
    command = _add(cache, "stats", parents=[common], help="what is kept, and how often that helped")
    command.set_defaults(run=_cache, purge=False, agent="", tag="")
    command = _add(cache, "purge", parents=[common], help="throw kept answers away")
    command.add_argument("--agent", default="", help="those of this agent only")
    command.add_argument("--tag", default="", help="those of this entrypoint only")
    command.set_defaults(run=_cache, purge=True)

    signing_key = _add(commands, "signing-key", help="what signs tokens").add_subparsers(
        required=True, metavar="COMMAND"
    )
    command = _add(signing_key, "list", parents=[common], help="all keys that are believed")
    command.set_defaults(run=_signing_key_list)
    command = _add(signing_key, "rotate", parents=[common], help="sign with the next key from now on")
    command.add_argument("--force", action="store_true", help="even if the next key was published only just now")
    command.add_argument("--drop", action="store_true", help="end all tokens that the key before has signed, at once")
    command.set_defaults(run=_signing_key_rotate)

    policy = _add(commands, "policy", help="look at policies").add_subparsers(required=True, metavar="COMMAND")
    command = _add(policy, "check", parents=[common], help="say whether a policy file is right")
    command.add_argument("file", metavar="NAME|FILE", help="a shipped policy, or a file")
    command.set_defaults(run=_policy_check)
    command = _add(policy, "explain", parents=[common], help="each step of the sandbox, and the key that asks for it")
    command.add_argument("policy", type=_policy_name, metavar="NAME|FILE")
    command.set_defaults(run=_policy_explain)
    command = _add(
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

    command = _add(commands, "schema", help="the JSON Schema of a file, for editors")
    command.add_argument(
        "of",
        choices=("policy", "config", "agent", "agent-file"),
        metavar="policy|config|agent|agent-file",
        help="a policy's file, runagentd.toml, an agent's runagent.config.json, or a file for 'apply'",
    )
    command.set_defaults(run=_schema)

    command = _add(commands, "doctor", parents=[common], help="what this machine offers, and a sandbox that proves it")
    command.add_argument("--config", type=Path, metavar="FILE", help="look at its [runtimes], too")
    command.set_defaults(run=_doctor)
    return parser


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    *,
    help: str,
    description: str = "",
    parents: Sequence[argparse.ArgumentParser] = (),
    epilog: str = "",
) -> argparse.ArgumentParser:
    """A command whose own --help says what it does: as the list of commands has it, if nothing better is given."""
    description = description or f"{help[0].upper()}{help[1:]}."
    return commands.add_parser(name, help=help, description=description, parents=list(parents), epilog=epilog or None)


def _policy_name(text: str) -> str:
    from runagentd.cli.runagentd import policy_name

    return policy_name(text)


def _ps(arguments: argparse.Namespace) -> int:
    from runagentd.cli import ps_commands

    return ps_commands.ps(state.open_existing(arguments.state_dir), as_json=arguments.json)


def _top(arguments: argparse.Namespace) -> int:
    from runagentd.cli import top_commands

    return top_commands.top(state.open_existing(arguments.state_dir), once=arguments.once, as_json=arguments.json)


def _describe(arguments: argparse.Namespace) -> int:
    from runagentd.cli import describe_commands

    return describe_commands.describe(state.open_existing(arguments.state_dir), arguments.agent, as_json=arguments.json)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 1000):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000")
    return int(text)


def _bounds(text: str) -> tuple[int, int]:
    first, colon, second = text.partition(":")
    if not (first.isascii() and first.isdecimal() and (not colon or (second.isascii() and second.isdecimal()))):
        raise argparse.ArgumentTypeError(f"{text!r} is not MIN:MAX, such as 1:8, or 4 for always four")
    minimum, maximum = int(first), int(second if colon else first)
    if minimum > maximum:
        raise argparse.ArgumentTypeError(f"{text!r} is not MIN:MAX: {minimum} is more than {maximum}")
    return minimum, maximum


def _text(text: str) -> str:
    """Not empty: "" would stand for something else."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def _percent(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= 100):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 100")
    return int(text)


def _share(text: str) -> tuple[str, int]:
    version, equals, percent = text.partition("=")
    if not version or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not VERSION=PERCENT, such as v2=10")
    return version, _percent(percent)


def _restart(arguments: argparse.Namespace) -> int:
    from runagentd.cli import scale_commands

    return scale_commands.restart(state.open_existing(arguments.state_dir), arguments.agent, as_json=arguments.json)


def _warm(arguments: argparse.Namespace) -> int:
    from runagentd.cli import scale_commands

    directory = state.open_existing(arguments.state_dir)
    return scale_commands.warm(directory, arguments.agent, arguments.instances, as_json=arguments.json)


def _scale(arguments: argparse.Namespace) -> int:
    from runagentd.cli import scale_commands

    directory = state.open_existing(arguments.state_dir)
    return scale_commands.scale(directory, arguments.agent, arguments.bounds, as_json=arguments.json)


def _logs(arguments: argparse.Namespace) -> int:
    from runagentd.cli import logs_commands

    directory = state.open_existing(arguments.state_dir)
    return logs_commands.logs(directory, arguments.agent, follow=arguments.follow, as_json=arguments.json)


def _calls(arguments: argparse.Namespace) -> int:
    from runagentd.cli import calls_commands

    return calls_commands.calls(
        state.open_existing(arguments.state_dir),
        agent=arguments.agent,
        status=arguments.status,
        since=arguments.since,
        limit=arguments.limit,
        as_json=arguments.json,
    )


def _events(arguments: argparse.Namespace) -> int:
    from runagentd.cli import events_commands

    return events_commands.events(
        state.open_existing(arguments.state_dir),
        agent=arguments.agent,
        follow=arguments.follow,
        limit=arguments.limit,
        as_json=arguments.json,
    )


def _check(arguments: argparse.Namespace) -> int:
    from runagentd.cli import check_commands
    from runagentd.config import load

    config = load.configured(arguments.config)
    return check_commands.check(arguments.folder, policy=arguments.policy, config=config, as_json=arguments.json)


def _deploy(arguments: argparse.Namespace) -> int:
    from runagentd.cli import deploy_commands

    return deploy_commands.deploy(
        state.open_existing(arguments.state_dir),
        arguments.folder,
        name=arguments.name or "",
        policy=arguments.policy or "",
        instances=arguments.instances,
        alias=arguments.alias or "",
        allow_widening=arguments.allow_widening,
        as_json=arguments.json,
    )


def _apply(arguments: argparse.Namespace) -> int:
    from runagentd.cli import apply_commands

    if arguments.json and not (arguments.yes or arguments.dry_run):
        complain("runagentctl: --json asks nothing: give --dry-run or --yes with it")
        return 2
    return apply_commands.apply(
        state.open_existing(arguments.state_dir),
        arguments.places or [Path(AGENTS)],
        dry_run=arguments.dry_run,
        yes=arguments.yes,
        prune=arguments.prune,
        as_json=arguments.json,
    )


def _versions(arguments: argparse.Namespace) -> int:
    from runagentd.cli import version_commands

    return version_commands.versions(state.open_existing(arguments.state_dir), arguments.agent, as_json=arguments.json)


def _promote(arguments: argparse.Namespace) -> int:
    from runagentd.cli import version_commands

    directory = state.open_existing(arguments.state_dir)
    return version_commands.promote(directory, arguments.agent, arguments.version, as_json=arguments.json)


def _traffic(arguments: argparse.Namespace) -> int:
    from runagentd.cli import version_commands

    return version_commands.traffic(
        state.open_existing(arguments.state_dir),
        arguments.agent,
        arguments.shares,
        errors_max=arguments.errors_max,
        as_json=arguments.json,
    )


def _alias(arguments: argparse.Namespace) -> int:
    from runagentd.cli import version_commands

    directory = state.open_existing(arguments.state_dir)
    return version_commands.alias(
        directory, arguments.agent, arguments.alias, arguments.version, as_json=arguments.json
    )


def _remove(arguments: argparse.Namespace) -> int:
    from runagentd.cli import version_commands

    directory = state.open_existing(arguments.state_dir)
    return version_commands.remove(directory, arguments.agent, arguments.version, as_json=arguments.json)


def _token_create(arguments: argparse.Namespace) -> int:
    from runagentd.cli import token_commands

    directory = state.open_existing(arguments.state_dir)
    return token_commands.create(
        subject=arguments.subject,
        agents=arguments.agent,
        ttl=arguments.ttl,
        keys_dir=str(directory.keys),
        state_id=directory.id,
        grants=_grants(arguments),
        tenant=arguments.tenant,
        as_json=arguments.json,
    )


def _grants(arguments: argparse.Namespace) -> list[str]:
    return [*arguments.scope, *(f"role:{role}" for role in arguments.role)]


def _token_inspect(arguments: argparse.Namespace) -> int:
    from runagentd.cli import token_commands

    return token_commands.inspect(state.open_existing(arguments.state_dir), arguments.token, as_json=arguments.json)


def _token_revoke(arguments: argparse.Namespace) -> int:
    from runagentd.cli import token_commands

    return token_commands.revoke(
        state.open_existing(arguments.state_dir),
        arguments.token,
        subject=arguments.subject,
        before=arguments.before,
        as_json=arguments.json,
    )


def _key_create(arguments: argparse.Namespace) -> int:
    from runagentd.cli import key_commands

    return key_commands.create(
        state.open_existing(arguments.state_dir),
        subject=arguments.subject,
        name=arguments.name,
        agents=arguments.agent,
        grants=_grants(arguments),
        tenant=arguments.tenant,
        expires=arguments.expires,
        addresses=arguments.address,
        as_json=arguments.json,
    )


def _key_list(arguments: argparse.Namespace) -> int:
    from runagentd.cli import key_commands

    return key_commands.list_keys(state.open_existing(arguments.state_dir), as_json=arguments.json)


def _key_rotate(arguments: argparse.Namespace) -> int:
    from runagentd.cli import key_commands

    directory = state.open_existing(arguments.state_dir)
    return key_commands.rotate(directory, arguments.id, overlap=arguments.overlap, as_json=arguments.json)


def _key_revoke(arguments: argparse.Namespace) -> int:
    from runagentd.cli import key_commands

    return key_commands.revoke(state.open_existing(arguments.state_dir), arguments.id, as_json=arguments.json)


def _cache(arguments: argparse.Namespace) -> int:
    from runagentd.cli import cache_commands

    return cache_commands.show(
        state.open_existing(arguments.state_dir),
        purge=arguments.purge,
        agent=arguments.agent,
        tag=arguments.tag,
        as_json=arguments.json,
    )


def _signing_key_list(arguments: argparse.Namespace) -> int:
    from runagentd.cli import signing_key_commands

    return signing_key_commands.list_keys(state.open_existing(arguments.state_dir), as_json=arguments.json)


def _signing_key_rotate(arguments: argparse.Namespace) -> int:
    from runagentd.cli import signing_key_commands

    return signing_key_commands.rotate(
        state.open_existing(arguments.state_dir), force=arguments.force, drop=arguments.drop, as_json=arguments.json
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
