"""What `runagentctl` has for looking at a running daemon: ps, top, describe, logs, calls, events.

Runs as: as `cli.runagentctl`.
Reads from strangers: nothing. Each command imports what it needs when it is carried out.
"""

from __future__ import annotations

import argparse

from runagentd import state
from runagentd.cli.subcommands import Subcommands, add_command


def add(commands: Subcommands, common: argparse.ArgumentParser, lines: argparse.ArgumentParser) -> None:
    """Add these commands: `lines` is for those whose JSON is an object a line."""
    command = add_command(commands, "ps", parents=[common], help="what runs")
    command.set_defaults(run=_ps)

    command = add_command(commands, "top", parents=[lines], help="what is busy, again and again, until Ctrl+C")
    command.add_argument("--once", action="store_true", help="one look, for scripts")
    command.set_defaults(run=_top)

    command = add_command(commands, "describe", parents=[common], help="all about an agent")
    command.add_argument("agent", metavar="AGENT")
    command.set_defaults(run=_describe)

    command = add_command(commands, "logs", parents=[lines], help="what an agent printed")
    command.add_argument("agent", metavar="AGENT")
    command.add_argument("-f", "--follow", action="store_true", help="go on with new lines until Ctrl+C")
    command.set_defaults(run=_logs)

    command = add_command(commands, "calls", parents=[lines], help="the last calls, and those that are under way")
    command.add_argument("agent", nargs="?", default="", metavar="AGENT")
    command.add_argument("--status", default="", choices=("pending", "completed", "failed"), help="only these")
    command.add_argument("--since", metavar="30m|1h|7d", help="none that is older")
    command.add_argument("--limit", type=int, default=20, metavar="N", help="how many (default: %(default)s)")
    command.set_defaults(run=_calls)

    command = add_command(commands, "events", parents=[lines], help="what has happened to agents and their instances")
    command.add_argument("agent", nargs="?", default="", metavar="AGENT")
    command.add_argument("-f", "--follow", action="store_true", help="go on with what happens until Ctrl+C")
    command.add_argument(
        "--limit", type=int, default=50, metavar="N", help="how many of the past (default: %(default)s)"
    )
    command.set_defaults(run=_events)


def _ps(arguments: argparse.Namespace) -> int:
    from runagentd.cli import ps_commands

    return ps_commands.ps(state.open_existing(arguments.state_dir), as_json=arguments.json)


def _top(arguments: argparse.Namespace) -> int:
    from runagentd.cli import top_commands

    return top_commands.top(state.open_existing(arguments.state_dir), once=arguments.once, as_json=arguments.json)


def _describe(arguments: argparse.Namespace) -> int:
    from runagentd.cli import describe_commands

    return describe_commands.describe(state.open_existing(arguments.state_dir), arguments.agent, as_json=arguments.json)


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
