"""``hybrid passkeys``: the arguments of its commands. What they do is in `hybrid.cli.passkeys_actions`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from hybrid.cli.terminal import Screen

Command = Callable[..., Any]


def vault_options(command: Command) -> Command:
    """``--vault``, ``--vault-key`` and ``--json-events``, as every command of this group takes them."""
    options = (
        click.option(
            "--vault",
            type=click.Path(path_type=Path),
            metavar="PATH",
            help="Where the passkeys are (in the user's data folder); a KeePass database if it ends in .kdbx.",
        ),
        click.option(
            "--vault-key",
            default="passphrase",
            metavar="passphrase|keyring|file:PATH|none",
            help="What opens it; passphrase+file:PATH for a KeePass database that wants both.",
        ),
        click.option(
            "--json-events",
            is_flag=True,
            expose_value=False,  # read before the arguments are
            help="One JSON object a line on stderr, for programs.",
        ),
    )
    return functools.reduce(lambda made, option: option(made), reversed(options), command)


_json = click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
_some = click.argument("wanted", nargs=-1, required=True, metavar="PASSKEY...")


@click.group(short_help="Look after the passkeys in a vault.")
def passkeys() -> None:
    """Look after the passkeys in a vault, or in a KeePass database.

    PASSKEY is an id as the list shows it, or more of it, or all of it as JSON shows it.
    """


@passkeys.command("list", short_help="List passkeys.")
@click.option("--all", "everything", is_flag=True, help="Removed and replaced ones as well.")
@_json
@vault_options
@click.pass_obj
def list_(screen: Screen, vault: Path | None, vault_key: str, everything: bool, as_json: bool) -> int:
    """List the passkeys in the vault."""
    from hybrid.cli import passkeys_actions

    return passkeys_actions.list_all(screen, vault, vault_key, everything=everything, as_json=as_json)


@passkeys.command(short_help="Show all about one passkey but its secrets.")
@click.argument("wanted", metavar="PASSKEY")
@_json
@vault_options
@click.pass_obj
def show(screen: Screen, vault: Path | None, vault_key: str, wanted: str, as_json: bool) -> int:
    """Show all about one passkey but its secrets."""
    from hybrid.cli import passkeys_actions

    return passkeys_actions.show(screen, vault, vault_key, wanted, as_json=as_json)


@passkeys.command(short_help="Give a passkey another name.")
@click.argument("wanted", metavar="PASSKEY")
@click.argument("name")
@click.option("--display-name", metavar="NAME", help="The longer name, too.")
@_json
@vault_options
@click.pass_obj
def rename(
    screen: Screen,
    vault: Path | None,
    vault_key: str,
    wanted: str,
    name: str,
    display_name: str | None,
    as_json: bool,
) -> int:
    """Change the account name that is shown for PASSKEY, here and where it is exported to."""
    from hybrid.cli import passkeys_actions

    return passkeys_actions.rename(screen, vault, vault_key, wanted, name, display_name, as_json=as_json)


@passkeys.command(short_help="Remove passkeys; restore brings them back.")
@_some
@_json
@vault_options
@click.pass_obj
def remove(screen: Screen, vault: Path | None, vault_key: str, wanted: tuple[str, ...], as_json: bool) -> int:
    """Stop offering passkeys. They stay in the vault until they are purged, and can be restored."""
    from hybrid.cli import passkeys_actions

    return passkeys_actions.remove(screen, vault, vault_key, wanted, as_json=as_json)


@passkeys.command(short_help="Bring back removed or replaced passkeys.")
@_some
@_json
@vault_options
@click.pass_obj
def restore(screen: Screen, vault: Path | None, vault_key: str, wanted: tuple[str, ...], as_json: bool) -> int:
    """Offer removed or replaced passkeys again."""
    from hybrid.cli import passkeys_actions

    return passkeys_actions.restore(screen, vault, vault_key, wanted, as_json=as_json)


@passkeys.command(short_help="Destroy removed or replaced passkeys.")
@click.argument("wanted", nargs=-1, metavar="PASSKEY...")
@click.option("--all", "everything", is_flag=True, help="All that are removed or replaced.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_json
@vault_options
@click.pass_obj
def purge(
    screen: Screen,
    vault: Path | None,
    vault_key: str,
    wanted: tuple[str, ...],
    everything: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Destroy removed or replaced passkeys. Nothing can bring them back."""
    from hybrid.cli import passkeys_actions

    return passkeys_actions.purge(screen, vault, vault_key, wanted, everything=everything, yes=yes, as_json=as_json)


@passkeys.command(short_help="Check that every passkey works.")
@_json
@vault_options
@click.pass_obj
def verify(screen: Screen, vault: Path | None, vault_key: str, as_json: bool) -> int:
    """Load every key, sign with it and check the signature; look at the copy of the generation before."""
    from hybrid.cli import passkeys_actions

    return passkeys_actions.verify(screen, vault, vault_key, as_json=as_json)


@passkeys.command(short_help="Change what opens the vault.")
@click.option(
    "--new-vault-key",
    default="passphrase",
    metavar="passphrase|keyring|file:PATH|none",
    help="What opens it from now on.",
)
@vault_options
@click.pass_obj
def rekey(screen: Screen, vault: Path | None, vault_key: str, new_vault_key: str) -> int:
    """Change what opens the vault: another passphrase, or another kind of key. Not for a KeePass database."""
    from hybrid.cli import passkeys_actions

    return passkeys_actions.rekey(screen, vault, vault_key, new_vault_key)
