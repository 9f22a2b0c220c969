"""``hybrid passkeys export`` and ``import``: their arguments. What they do is in `hybrid.cli.portability_actions`."""

from __future__ import annotations

from pathlib import Path

import click

from hybrid.cli.passkeys import vault_options
from hybrid.cli.terminal import Screen

FORMATS = ("kdbx", "cxf", "bitwarden", "passkey")

_json = click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
_file = click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
_key_file = click.option(
    "--key-file",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Key file of the KeePass database FILE, instead of a password.",
)
_with_password = click.option("--with-password", is_flag=True, help="FILE has a password beside the key file.")


@click.command("export", short_help="Give passkeys to another password manager.")
@_file
@click.argument("wanted", nargs=-1, metavar="PASSKEY...")
@click.option("--format", "format_", type=click.Choice(FORMATS), help="What to write (as FILE ends, else kdbx).")
@click.option("--clear-text", is_flag=True, help="Write a file that is not encrypted.")
@click.option("--update", is_flag=True, help="FILE is there: add to it, keep all that is in it.")
@click.option("--overwrite", is_flag=True, help="FILE may be there: write it anew.")
@click.option("--yes", is_flag=True, help="Do not ask; the PIN of a vault is asked for all the same.")
@_key_file
@_with_password
@_json
@vault_options
@click.pass_obj
def export(
    screen: Screen,
    vault: Path | None,
    vault_key: str,
    file: Path,
    wanted: tuple[str, ...],
    format_: str | None,
    clear_text: bool,
    update: bool,
    overwrite: bool,
    yes: bool,
    key_file: Path | None,
    with_password: bool,
    as_json: bool,
) -> int:
    """Write passkeys to FILE for another password manager; all of them, or those that are named.

    kdbx is a KeePass database for KeePassXC, Strongbox, KeePassDX and others, bitwarden the JSON of that
    program, protected by a password: these two are encrypted. cxf is the Credential Exchange Format 1.0, passkey
    one passkey for KeePassXC: these two are not, so they want --clear-text.

    The passkeys stay in the vault. What the format has no place for is named. A vault that opens without a
    passphrase asks for its PIN first, or whether you mean it.
    """
    from hybrid.cli import portability_actions as actions

    options = actions.ExportOptions(
        screen,
        vault,
        vault_key,
        file,
        wanted,
        format_,
        clear_text,
        update,
        overwrite,
        key_file,
        with_password,
        yes,
        as_json,
    )
    return actions.export(options)


@click.command("import", short_help="Take passkeys from another password manager.")
@_file
@click.option("--format", "format_", type=click.Choice(FORMATS), help="What FILE is (found out).")
@click.option("--device-bound", is_flag=True, help="Tell sites that these passkeys are not synced (BE and BS 0).")
@click.option(
    "--missing-flags",
    type=click.Choice(["0", "1"]),
    default="1",
    help="BE and BS of KeePass entries without them (1, as KeePassXC 2.7.12; older ones take 0).",
)
@click.option("--dry-run", is_flag=True, help="Only read FILE; the vault is not opened.")
@_key_file
@_with_password
@_json
@vault_options
@click.pass_obj
def import_(
    screen: Screen,
    vault: Path | None,
    vault_key: str,
    file: Path,
    format_: str | None,
    device_bound: bool,
    missing_flags: str,
    dry_run: bool,
    key_file: Path | None,
    with_password: bool,
    as_json: bool,
) -> int:
    """Take the passkeys in FILE into the vault. None that is there is changed or replaced.

    What cannot be used is left out, and named with the reason. Exports of Bitwarden may be protected by a password.
    Delete FILE afterwards if it is not encrypted.
    """
    from hybrid.cli import portability_actions as actions

    options = actions.ImportOptions(
        screen,
        vault,
        vault_key,
        file,
        format_,
        not device_bound,
        missing_flags == "1",
        dry_run,
        key_file,
        with_password,
        as_json,
    )
    return actions.import_(options)
