"""What `runagentctl` has for who may call: tokens, API keys, and what signs tokens.

Runs as: as `cli.runagentctl`.
Reads from strangers: nothing. Each command imports what it needs when it is carried out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from runagentd import state
from runagentd.cli.subcommands import Subcommands, add_command


def add(commands: Subcommands, common: argparse.ArgumentParser) -> None:
    """Add those for tokens and API keys."""
    token = add_command(commands, "token", help="make tokens, look at them, end them").add_subparsers(
        required=True, metavar="COMMAND"
    )
    command = add_command(token, "create", parents=[common], help="print a new token, alone, on stdout")
    command.add_argument("--subject", required=True, help="who will call")
    command.add_argument(
        "--agent",
        action="append",
        help="an agent that may be called; may be repeated (default: all, or none with --role)",
    )
    command.add_argument("--role", action="append", default=[], help="a role of runagentd.toml; may be repeated")
    command.add_argument("--scope", action="append", default=[], help="such as agents:invoke:chat/ask; may be repeated")
    command.add_argument("--config", type=Path, metavar="FILE", help="where roles are looked up; as for 'serve'")
    command.add_argument("--tenant", help="for whom the subject acts")
    command.add_argument("--ttl", default="1h", metavar="30s|15m|1h|7d", help="default: %(default)s")
    command.set_defaults(run=_token_create)
    command = add_command(token, "inspect", parents=[common], help="what a token says, and whether it is good")
    command.add_argument("token", metavar="TOKEN", help="a token or an API key; - reads it from standard input")
    command.set_defaults(run=_token_inspect)
    command = add_command(token, "revoke", parents=[common], help="end tokens before their time")
    command.add_argument("token", nargs="?", metavar="TOKEN|JTI", help="one token (- reads it from standard input)")
    command.add_argument("--subject", help="all that was issued to this subject, API keys too")
    command.add_argument("--before", metavar="TIME", help="issued until then: now, or 2026-11-24T12:00:00Z")
    command.set_defaults(run=_token_revoke)

    key = add_command(commands, "key", help="API keys").add_subparsers(required=True, metavar="COMMAND")
    command = add_command(key, "create", parents=[common], help="print a new API key, alone, on stdout, this once")
    command.add_argument("--subject", required=True, help="who will call")
    command.add_argument("--name", required=True, help="what it is for: 'key list' shows it")
    command.add_argument(
        "--agent",
        action="append",
        help="an agent that may be called; may be repeated (default: all, or none with --role)",
    )
    command.add_argument("--role", action="append", default=[], help="a role of runagentd.toml; may be repeated")
    command.add_argument("--scope", action="append", default=[], help="such as agents:invoke:chat/ask; may be repeated")
    command.add_argument("--config", type=Path, metavar="FILE", help="where roles are looked up; as for 'serve'")
    command.add_argument("--tenant", help="for whom the subject acts")
    command.add_argument("--expires", metavar="90d", help="how long it is good (default: until it is revoked)")
    command.add_argument(
        "--address", action="append", default=[], metavar="NETWORK", help="where it may be used from; may be repeated"
    )
    command.set_defaults(run=_key_create)
    command = add_command(key, "list", parents=[common], help="all API keys, without their secrets")
    command.set_defaults(run=_key_list)
    command = add_command(key, "rotate", parents=[common], help="print another secret for an API key")
    command.add_argument("id", metavar="ID")
    command.add_argument(
        "--overlap", default="1d", metavar="0|1h|1d", help="how long the one before stays good (default: %(default)s)"
    )
    command.set_defaults(run=_key_rotate)
    command = add_command(key, "revoke", parents=[common], help="end an API key, and what it is calling")
    command.add_argument("id", metavar="ID")
    command.set_defaults(run=_key_revoke)


def add_signing_keys(commands: Subcommands, common: argparse.ArgumentParser) -> None:
    """Add those for the keys that sign tokens."""
    signing_key = add_command(commands, "signing-key", help="what signs tokens").add_subparsers(
        required=True, metavar="COMMAND"
    )
    command = add_command(signing_key, "list", parents=[common], help="all keys that are believed")
    command.set_defaults(run=_signing_key_list)
    command = add_command(signing_key, "rotate", parents=[common], help="sign with the next key from now on")
    command.add_argument("--force", action="store_true", help="even if the next key was published only just now")
    command.add_argument("--drop", action="store_true", help="end all tokens that the key before has signed, at once")
    command.set_defaults(run=_signing_key_rotate)


def _token_create(arguments: argparse.Namespace) -> int:
    from runagentd.cli import strangers, token_commands

    directory = state.open_existing(arguments.state_dir)
    strangers.note_agents(directory, arguments.agent or ())
    strangers.note_roles(arguments.config, arguments.role)
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
    from runagentd.cli import key_commands, strangers

    directory = state.open_existing(arguments.state_dir)
    strangers.note_agents(directory, arguments.agent or ())
    strangers.note_roles(arguments.config, arguments.role)
    return key_commands.create(
        directory,
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


def _signing_key_list(arguments: argparse.Namespace) -> int:
    from runagentd.cli import signing_key_commands

    return signing_key_commands.list_keys(state.open_existing(arguments.state_dir), as_json=arguments.json)


def _signing_key_rotate(arguments: argparse.Namespace) -> int:
    from runagentd.cli import signing_key_commands

    return signing_key_commands.rotate(
        state.open_existing(arguments.state_dir), force=arguments.force, drop=arguments.drop, as_json=arguments.json
    )
