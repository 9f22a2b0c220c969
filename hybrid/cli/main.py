"""Arguments and exit codes of the `hybrid` command. What a command does is in its own file, loaded when it is used."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

import hybrid
from hybrid.cli.messages import (
    EXIT_BUG,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    Explanation,
    UsageProblem,
    explain,
    explain_bug,
)
from hybrid.cli.passkeys import passkeys
from hybrid.cli.portability import export, import_
from hybrid.cli.results import EXIT_BROKEN_PIPE, is_of_stdout, lose_result
from hybrid.cli.terminal import Screen
from hybrid.errors import HybridError

Command = Callable[..., Any]

DEBUG = "HYBRID_DEBUG"  # set and not empty: an unforeseen exception shows where it came from

_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def _number(what: str, *, most: float, zero: bool = False) -> Callable[..., float | None]:
    """Make a callback that takes a number above 0 (with `zero`: or 0) up to `most`, so neither infinity nor nan."""

    def check(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
        if value is None:
            return None
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number <= most or (number == 0 and not zero):
            least = "from 0" if zero else "above 0 and"
            raise click.BadParameter(f"{value} is not {what} {least} up to {most:g}", ctx, param)
        return number

    return check


_seconds = _number("a number of seconds", most=86400)
_rate = _number("a rate", most=100000, zero=True)


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, in the order written."""
    return lambda command: functools.reduce(lambda made, option: option(made), reversed(options), command)


def _timeout_options(**stages: str) -> Callable[[Command], Command]:
    return _options(
        *(
            click.option(
                f"--timeout-{stage}",
                callback=_seconds,
                metavar="SECONDS",
                help=text,
            )
            for stage, text in stages.items()
        )
    )


def _timeouts(given: dict[str, Any]) -> dict[str, float]:
    """Take the time-outs out of a command's arguments, those that were given."""
    names = [name for name in given if name.startswith("timeout_")]
    values = {name.removeprefix("timeout_"): given.pop(name) for name in names}
    return {stage: seconds for stage, seconds in values.items() if seconds is not None}


_file = click.Path(path_type=Path)

_relay_options = _options(
    click.option("--relay", metavar="HOST:PORT", help="Connect to this address instead of the relay's own."),
    click.option("--relay-name", metavar="NAME", help="Name to ask of the relay's certificate."),
    click.option("--relay-ca", type=_file, metavar="FILE", help="Trust this CA (PEM) besides the system's."),
)
_json_events = click.option(
    "--json-events",
    is_flag=True,
    expose_value=False,  # read before the arguments are
    help="One JSON object a line on stderr, for programs.",
)
# Spelled out, because the file that has them loads the whole engine.
PRESETS = ("iphone", "iphone-ios18.0", "iphone-ios16", "android", "android-chrome2022", "microg")
_preset = click.option(
    "--preset", type=click.Choice(PRESETS), help="Behave as this phone does, as far as others have told."
)
_vault_key = click.option(
    "--vault-key",
    default="passphrase",
    metavar="passphrase|keyring|file:PATH|none",
    help="What opens it; passphrase+file:PATH for a KeePass database that wants both.",
)
_fido_2_3 = click.option("--fido-2-3", is_flag=True, help="Announce FIDO_2_3 too, for clients that look for it.")
_adapter = click.option("--adapter", metavar="NAME", help="Bluetooth adapter, e.g. hci0 (laptop: first, phone: last).")

_laptop_options = _options(
    click.option("--qr-file", type=_file, metavar="FILE", help="Write the code to FILE.png or FILE.svg as well."),
    click.option("--invert", is_flag=True, help="Swap dark and light in the code."),
    click.option("--no-qr", is_flag=True, help="Draw no code on the terminal."),
    _adapter,
    _relay_options,
    _timeout_options(
        scan="Time to hear the phone (120).",
        tunnel="Time to reach the relay (15).",
        handshake="Time for the phone's keys (15).",
        greeting="Time for the phone's introduction (15).",
        user="Time for the person at the phone (120).",
    ),
    _json_events,
)


@click.group(context_settings=_HELP)
@click.version_option(hybrid.__version__, prog_name="hybrid", message="%(prog)s %(version)s")
def cli() -> None:
    """Use a phone's passkey from this computer, be the phone, or try both against each other.

    \b
    Exit codes: 0 success, 1 a bug, 2 usage, 3 declined, 4 no passkey,
    5 time-out, 6 Bluetooth, 7 network, 8 protocol, 9 already registered,
    10 the phone left without an answer, 130 Ctrl-C.
    """


def _laptop(arguments: dict[str, Any]) -> Any:
    from hybrid.cli.laptop import LaptopOptions

    timeouts = _timeouts(arguments)
    shared = {name: arguments.pop(name) for name in LaptopOptions.__dataclass_fields__ if name in arguments}
    return LaptopOptions(screen=_screen, timeouts=timeouts, **shared)


@cli.command(short_help="Sign in with a passkey on a phone.")
@click.argument("rp_id", metavar="RP_ID")
@click.option("--origin", metavar="URL", help="Origin of the site (https://RP_ID).")
@click.option("--options", "options_file", metavar="FILE|-", help="Options of the site, as WebAuthn JSON.")
@click.option(
    "--public-key", "public_key_file", metavar="FILE|-", help="Check the signature with this key (PEM, DER, COSE)."
)
@_laptop_options
def get(rp_id: str, origin: str | None, options_file: str | None, public_key_file: str | None, **rest: Any) -> int:
    """Sign in at RP_ID with a passkey on a phone; print the answer as JSON."""
    from hybrid.cli import laptop
    from hybrid.cli.files import read_file

    if options_file == public_key_file == "-":
        raise UsageProblem("standard input cannot be two files", "give --options or --public-key a path")
    options_json = read_file(options_file, "options") if options_file is not None else None
    public_key = read_file(public_key_file, "public key") if public_key_file is not None else None
    return laptop.get(_laptop(rest), rp_id, origin, options_json, public_key)


@cli.command(short_help="Make a passkey on a phone.")
@click.argument("rp_id", metavar="RP_ID")
@click.option("--user", metavar="NAME", help="Account to make the passkey for; needed unless --options names one.")
@click.option("--origin", metavar="URL", help="Origin of the site (https://RP_ID).")
@click.option("--options", "options_file", metavar="FILE|-", help="Options of the site, as WebAuthn JSON.")
@_laptop_options
def create(rp_id: str, user: str | None, origin: str | None, options_file: str | None, **rest: Any) -> int:
    """Make a passkey for RP_ID on a phone; print the registration as JSON."""
    from hybrid.cli import laptop
    from hybrid.cli.files import read_file

    if user is None and options_file is None:
        raise UsageProblem("nobody is named to make a passkey for", "add --user NAME")
    options_json = read_file(options_file, "options") if options_file is not None else None
    return laptop.create(_laptop(rest), rp_id, user, origin, options_json)


@cli.command(short_help="Show what a phone says about itself.")
@_laptop_options
def info(**rest: Any) -> int:
    """Show what a phone says about itself; sends it no command."""
    from hybrid.cli import laptop

    return laptop.info(_laptop(rest))


@cli.command(short_help="Be the phone for a code.")
@click.argument("code", required=False)
@click.option("--qr-image", type=_file, metavar="FILE", help="Find the code in a screenshot or photograph.")
@click.option("--vault", type=_file, metavar="PATH", help="Vault, or NAME.kdbx (in the user's data folder).")
@_vault_key
@click.option("--approve", type=click.Choice(["ask", "always", "never"]), default="ask", help="Who decides (ask).")
@_preset
@_fido_2_3
@click.option("--service-id", type=click.IntRange(0, 65535), metavar="N", help="Relay to meet at (0, or the preset's).")
@click.option("--radio", type=click.Choice(["bluez"]), default="bluez", help="What advertises (bluez).")
@_adapter
@_relay_options
@click.option("--many", is_flag=True, help="Serve more than one command.")
@_timeout_options(
    tunnel="Time to reach the relay (15).",
    advertise="Time on the air (60).",
    request="Time for the computer to ask (120).",
    user="Time to answer a question (60).",
)
@_json_events
def phone(**arguments: Any) -> int:
    """Be the phone for CODE: a FIDO:/ code, or - to read it from standard input.

    Give the code on standard input where others can see the process list. Never answer a code that
    somebody else sent you.
    """
    from hybrid.cli.phone import PhoneOptions
    from hybrid.cli.phone import phone as be_phone

    if (arguments["code"] is None) == (arguments["qr_image"] is None):
        raise UsageProblem(
            "there is no code to answer, or two", "give the code, or - and the code on stdin, or --qr-image"
        )
    arguments.pop("radio")
    timeouts = _timeouts(arguments)
    user_timeout = timeouts.pop("user", None)
    return be_phone(PhoneOptions(screen=_screen, user_timeout=user_timeout, timeouts=timeouts, **arguments))


@cli.command(short_help="Run known-answer files.")
@click.argument("files", nargs=-1, required=True, type=_file, metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
@_json_events
def vectors(files: tuple[Path, ...], as_json: bool) -> int:
    """Run known-answer files through the functions that client and phone use."""
    from hybrid.cli.vectors import run_files

    return run_files(files, as_json=as_json)


@cli.command(
    "virtual-bluez",
    short_help="Run a command with virtual Bluetooth adapters.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.option("--adapters", type=click.IntRange(1, 16), default=2, metavar="N", help="How many adapters (2).")
@click.option("--bluez", type=click.Choice(["5.66", "5.82"]), default="5.82", help="Whose behaviour (5.82).")
@click.option("--strangers", callback=_rate, default="0", metavar="RATE", help="Adverts of others a second.")
@_json_events
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD...")
def virtual_bluez(adapters: int, bluez: str, strangers: float, command: tuple[str, ...]) -> int:
    """Run CMD with Bluetooth adapters that exist only for it; give its exit code."""
    from hybrid.testing.virtual_bluez import CannotRun, DbusDaemonMissing, run_command

    try:
        return run_command(list(command), adapters=adapters, bluez=bluez, strangers=strangers)
    except DbusDaemonMissing as error:
        raise UsageProblem(str(error), "install it: apt install dbus-daemon") from None
    except CannotRun as error:
        _screen.fail("usage", Explanation(str(error), "check the command after --", error.exit_code))
        return error.exit_code


@cli.command("serve-authenticator", short_help="Serve an authenticator on a socket, for test suites.")
@click.option("--socket", type=_file, metavar="PATH", help="Unix socket to make and serve on.")
@click.option("--tcp", metavar="127.0.0.1:PORT", help="Loopback address to serve on instead; port 0 takes a free one.")
@click.option("--profile", type=click.Choice(["roaming", "phone"]), help="What it behaves as (roaming).")
@_preset
@_fido_2_3
@click.option("--store", default="memory", metavar="memory|PATH", help="Vault, or NAME.kdbx (memory).")
@_vault_key
@click.option("--approve", type=click.Choice(["ask", "always", "never"]), default="ask", help="Who decides (ask).")
@click.option("--control", type=_file, metavar="PATH", help="Unix socket for power cycles, presence and cancelling.")
@click.option(
    "--reset-window", callback=_seconds, metavar="SECONDS", help="Refuse to reset later than this after a power cycle."
)
@click.option("--more-algorithms", is_flag=True, help="Offer ES384, ES512 and ML-DSA as well.")
@_timeout_options(user="Time to answer a question (60).")
@_json_events
def serve_authenticator(**arguments: Any) -> int:
    """Serve one authenticator on a socket, until SIGTERM.

    A message is a 4-byte big-endian length, a command byte and CBOR; an answer is a length, a status byte and CBOR.
    The control socket takes JSON lines: {"command": "power-cycle"}, {"command": "cancel"}, {"presence": "off"},
    {"presence": "on"}.
    """
    from hybrid.cli.serve_authenticator import ServeOptions
    from hybrid.cli.serve_authenticator import serve_authenticator as serve

    user_timeout = _timeouts(arguments).get("user")
    return serve(ServeOptions(screen=_screen, user_timeout=user_timeout, **arguments))


@cli.command(short_help="Show a whole ceremony on this machine.")
@_json_events
def demo() -> int:
    """Show a whole ceremony on this machine: laptop, phone and relay, a new passkey and a sign-in with it."""
    from hybrid.cli.demo import run_demo

    return run_demo(_screen)


passkeys.add_command(export)
passkeys.add_command(import_)
cli.add_command(passkeys)

_screen = Screen()


def run(arguments: list[str] | None = None) -> NoReturn:
    """Console entry point: run the command and exit with its code."""
    global _screen
    words = sys.argv[1:] if arguments is None else arguments
    ours = words[: words.index("--")] if "--" in words else words
    _screen = Screen(json_events="--json-events" in ours)
    sys.exit(_flush(_run(words)))


def _run(words: list[str]) -> int:
    try:
        code = cli.main(words, prog_name="hybrid", standalone_mode=False, obj=_screen)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return EXIT_USAGE
    except click.ClickException as error:
        place = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx is not None else "hybrid"
        return _fail(UsageProblem(_lower(error.format_message()), f"{place} --help shows what it takes"))
    except HybridError as error:
        return _fail(error)
    except (KeyboardInterrupt, click.Abort):
        return EXIT_INTERRUPTED
    except SystemExit:  # what click makes of a reader of stdout that left
        return EXIT_BROKEN_PIPE
    except OSError as error:
        return _lose(error) if is_of_stdout(error) else _fail_unforeseen(error)
    except Exception as error:  # the outermost border: a person gets a sentence, whatever we forgot
        return _fail_unforeseen(error)


def _flush(code: int) -> int:
    try:
        sys.stdout.flush()
    except OSError as error:
        return _lose(error)
    except (AttributeError, ValueError):  # none from the beginning, or closed once it was lost
        pass
    return code


def _lose(error: OSError) -> int:
    try:
        return lose_result(error)
    except HybridError as problem:
        return _fail(problem)


def _fail(error: HybridError) -> int:
    explanation = explain(error)
    _screen.fail(error.identifier, explanation)
    _show_traceback(error, explanation)
    return explanation.exit_code


def _fail_unforeseen(error: Exception) -> int:
    explanation = explain_bug(error)
    _screen.fail("bug", explanation)
    _show_traceback(error, explanation)
    return explanation.exit_code


def _show_traceback(error: Exception, explanation: Explanation) -> None:
    # Lines of our source and the exception's own text, never the values of variables.
    if os.environ.get(DEBUG) and explanation.exit_code == EXIT_BUG:
        for line in "".join(traceback.format_exception(error)).splitlines():
            _screen.debug(line)


def _lower(message: str) -> str:
    """A sentence of the argument parser as one of ours."""
    text = " ".join(message.split()).rstrip(".").replace(". Did you mean", "; did you mean")
    return text[:1].lower() + text[1:]
