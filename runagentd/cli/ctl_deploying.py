"""What `runagentctl` has for what is served: instances, deploys, agent files, versions.

Runs as: as `cli.runagentctl`.
Reads from strangers: nothing. Each command imports what it needs when it is carried out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from runagentd import state
from runagentd.cli.subcommands import Subcommands, add_command, policy_name
from runagentd.log import complain

AGENTS = "/etc/runagentd/agents"
"""Where 'apply' looks for agent files."""


def add(commands: Subcommands, common: argparse.ArgumentParser) -> None:
    """Add these commands."""
    command = add_command(
        commands, "restart", parents=[common], help="end an agent's instances and start others at once"
    )
    command.add_argument("agent", metavar="AGENT")
    command.set_defaults(run=_restart)

    command = add_command(
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

    command = add_command(
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

    command = add_command(
        commands,
        "check",
        parents=[common],
        help="load and check a folder without serving it",
        description="Load and check a folder without serving it: all that 'runagentd serve' looks at, its packages "
        "among it, in a daemon that is thrown away.",
    )
    command.add_argument("folder", type=Path, metavar="DIR")
    command.add_argument("--policy", default="base", type=policy_name, metavar="NAME|FILE", help="default: %(default)s")
    command.add_argument("--config", type=Path, metavar="FILE", help="as for 'runagentd serve'")
    command.set_defaults(run=_check)

    command = add_command(
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
        type=policy_name,
        metavar="NAME|FILE",
        help="default: that of the version that serves, or base",
    )
    command.add_argument("--instances", type=_bounds, metavar="MIN:MAX", help="within its policy; N alone is both")
    command.add_argument("--alias", type=_text, help="that leads to this version from now on")
    command.add_argument(
        "--allow-widening", action="store_true", help="although its policy grants more than the one that serves"
    )
    command.add_argument(
        "--take-over", action="store_true", help="although another folder has served as this agent so far"
    )
    command.set_defaults(run=_deploy)

    command = add_command(
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
    command.add_argument(
        "--take-over", action="store_true", help="also agents that were deployed by hand, or from elsewhere"
    )
    command.set_defaults(run=_apply)

    command = add_command(commands, "versions", parents=[common], help="the versions of an agent")
    command.add_argument("agent", metavar="AGENT")
    command.set_defaults(run=_versions)

    command = add_command(commands, "rollback", parents=[common], help="have the version before serve again")
    command.add_argument("agent", metavar="AGENT")
    command.add_argument(
        "version",
        nargs="?",
        default="",
        metavar="VERSION",
        help="another one: v3, an alias, or the begin of a digest (default: the one that served before)",
    )
    command.set_defaults(run=_promote)

    command = add_command(commands, "promote", parents=[common], help="have a version of an agent serve")
    command.add_argument("agent", metavar="AGENT")
    command.add_argument("version", type=_text, metavar="VERSION", help="v3, an alias, or the begin of a digest")
    command.set_defaults(run=_promote)

    command = add_command(
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

    command = add_command(commands, "alias", parents=[common], help="give a version of an agent a name")
    command.add_argument("agent", metavar="AGENT")
    command.add_argument("alias", type=_text, metavar="ALIAS")
    command.add_argument("version", nargs="?", default="", metavar="VERSION", help="without one the alias is no more")
    command.set_defaults(run=_alias)

    command = add_command(commands, "remove", parents=[common], help="forget an agent, or one version of it")
    command.add_argument("agent", metavar="AGENT")
    command.add_argument("version", nargs="?", default="", metavar="VERSION", help="one that does not serve")
    command.set_defaults(run=_remove)


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
        take_over=arguments.take_over,
        as_json=arguments.json,
    )


def _apply(arguments: argparse.Namespace) -> int:
    from runagentd.cli import apply_commands

    if arguments.json and not (arguments.yes or arguments.dry_run):
        complain("runagentctl: --json asks nothing: give --dry-run or --yes with it")
        return 2
    return apply_commands.apply(
        state.open_existing(arguments.state_dir),
        arguments.places,
        usual=Path(AGENTS),
        dry_run=arguments.dry_run,
        yes=arguments.yes,
        prune=arguments.prune,
        take_over=arguments.take_over,
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
