"""The configuration file: which line is to blame, and who wins."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tunnel_server.__main__ import command, parse
from tunnel_server.complaints import CommandError
from tunnel_server.config import ConfigError, defaults, line_of, load, options_by_key, read
from tunnel_server.forwarding import Peer

EXAMPLE = Path(__file__).parents[2] / "packaging" / "tunnel-server.toml"


@click.command()
@click.option("-c", "--config", type=click.Path(path_type=Path), is_eager=True, callback=load)
@click.option("--host", default="127.0.0.1")
@click.option("--port", type=click.IntRange(0, 65535), default=8080)
@click.option("--key", type=click.Path(path_type=Path))
@click.option("--plain", is_flag=True)
@click.option("--origin", "origins", multiple=True)
@click.option("--max-message", "message", type=click.IntRange(min=1), default=5)
@click.option("--drain", type=click.FloatRange(min=0), default=30.0)
@click.option("--log-level", type=click.Choice(["debug", "info"]), default="info")
@click.version_option("1")
def example(config: Path | None, **values: Any) -> None:
    """Stand in for the real command, so that these tests do not change with its options."""
    click.echo(repr(values))


def write(folder: Path, text: str) -> Path:
    path = folder / "relay.toml"
    path.write_text(text)
    return path


GOOD = """
# a comment
host = "::1"
port = 0
plain = true
origin = ["https://a.example", "https://b.example"]
max-message = 7
drain = 2
log-level = 'debug'
key = "key.pem"
nodes = ["a=127.0.0.1:1,0"]
"""


def run(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(example, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    values: dict[str, Any] = eval(result.output, {"PosixPath": Path})
    return values


def test_a_file_sets_what_it_names(tmp_path: Path) -> None:
    assert run("--config", str(write(tmp_path, GOOD))) == {
        "host": "::1",
        "port": 0,
        "key": Path("key.pem"),
        "plain": True,
        "origins": ("https://a.example", "https://b.example"),
        "message": 7,
        "drain": 2.0,
        "log_level": "debug",
    }


def test_the_command_line_wins_in_any_order(tmp_path: Path) -> None:
    path = str(write(tmp_path, GOOD))
    for arguments in (["--port", "5", "-c", path], ["-c", path, "--port", "5"]):
        assert run(*arguments)["port"] == 5
        assert run(*arguments)["host"] == "::1"
    assert run("-c", path, "--origin", "https://c.example")["origins"] == ("https://c.example",)


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert run("-c", str(write(tmp_path, ""))) == run()


def test_one_value_of_several(tmp_path: Path) -> None:
    assert run("-c", str(write(tmp_path, 'origin = "https://a.example"')))["origins"] == ("https://a.example",)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("\nprot = 1\n", 2, "unknown key prot; did you mean port?"),
        ("zzz = 1\n", 1, "unknown key zzz"),
        ("config = 'x'\n", 1, "unknown key config"),
        ("version = true\n", 1, "unknown key version"),
        ("message = 1\n", 1, "unknown key message; did you mean max-message?"),
        ("port = 1\n\n[limits]\nx = 1\n", 3, "unknown table limits"),
        ("host = 'a'\nport = '1'\n", 2, "port: must be a whole number"),
        ("port = true\n", 1, "port: must be a whole number"),
        ("port = 1.0\n", 1, "port: must be a whole number"),
        ("port = 70000\n", 1, "port: 70000 is not in the range 0<=x<=65535"),
        ("host = 1\n", 1, "host: must be a text in quotes"),
        ("host = ['a']\n", 1, "host: must be a text in quotes"),
        ("plain = 1\n", 1, "plain: must be true or false"),
        ("drain = '1'\n", 1, "drain: must be a number"),
        ("drain = -1\n", 1, "drain: -1.0 is not in the range x>=0"),
        ("origin = ['a', 1]\n", 1, "origin: must be a text in quotes"),
        ("log-level = 'loud'\n", 1, "log-level: 'loud' is not one of 'debug', 'info'"),
    ],
)
def test_what_is_wrong_and_where(text: str, line: int, problem: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        defaults(example, path)
    assert (str(caught.value), caught.value.line, caught.value.exit_code) == (f"{path}:{line}: {problem}", line, 2)


@pytest.mark.parametrize(
    ("text", "line"), [("host = 'a'\nhost = 'b'\n", 2), ("\na b\n", 2), ('\nhost = "a', 2), ("host = 'a\\q\nb'", 1)]
)
def test_text_that_is_no_toml(text: str, line: int, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        defaults(example, path)
    assert str(caught.value).startswith(f"{path}:{line}: no TOML: ")
    assert "at line" not in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent: no such file or directory$"):
        read(tmp_path / "absent")
    with pytest.raises(ConfigError, match="is a directory"):
        read(tmp_path)
    binary = tmp_path / "binary"
    binary.write_bytes(b"a = 1\nb = '\xff'\n")
    with pytest.raises(ConfigError, match="binary:2: this is no UTF-8"):
        read(binary)
    binary.write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(ConfigError, match="more than 1048576 bytes"):
        read(binary)


@pytest.mark.parametrize("line", ['"port" = 1', "'port'=1", "  port\t= 1", "port.x = 1", "[port]", "[[ port ]]"])
def test_finds_the_line_of_a_key(line: str) -> None:
    assert line_of(f"# port\nportal = 2\n{line}\n", "port") == 3


@given(st.text())
def test_any_text_is_values_or_a_documented_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(ConfigError):
        defaults(example, path)


def test_which_options_have_a_key() -> None:
    assert list(options_by_key(example)) == [
        "host", "port", "key", "plain", "origin", "max-message", "drain", "log-level",
    ]  # fmt: skip


def uncommented(path: Path) -> str:
    """The example with every key in force."""
    return "\n".join(line.removeprefix("#") for line in path.read_text().splitlines() if re.match(r"#[a-z-]+ = ", line))


def test_the_example_has_every_option_and_its_default(tmp_path: Path) -> None:
    values = defaults(command, write(tmp_path, uncommented(EXAMPLE)))
    options = options_by_key(command).values()
    assert set(values) == {option.name for option in options}
    context = click.Context(command)
    for option in options:
        default = option.get_default(context)
        if isinstance(default, (bool, int, float, str)):
            assert values[option.name] == default
    assert defaults(command, EXAMPLE) == {}


def test_a_file_comes_to_settings(tmp_path: Path) -> None:
    text = """
        port = 0
        workers = 3
        node = 7
        max-message = 1000
        trusted-proxy = ["192.0.2.0/24"]
        admin = "[::1]:0"
    """
    settings = parse(["--config", str(write(tmp_path, text)), "--workers", "2"])
    assert (settings.port, settings.workers, settings.node, settings.admin) == (0, 2, 7, ("::1", 0))
    assert settings.limits.message == 1000
    assert [str(network) for network in settings.proxies] == ["192.0.2.0/24"]
    assert settings.cluster


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--peer", "2=localhost:1"], "--peer needs to know which node this is"),
        (["--peer", "2=localhost:1", "--node", "2"], "node 2 is this one"),
        (["--peer", "2=localhost:1", "--node", "1"], "peers need certificates"),
        (["--peer", "2=a:1", "--peer", "2=b:1", "--node", "1"], "two peers have one number"),
        (["--peer-listen", "localhost:1"], "peers need certificates"),
        (["--peer-cert", "a"], "--peer-cert, --peer-key and --peer-ca belong together"),
        (["--peer-cert", "a", "--peer-key", "a", "--peer-ca", "a"], "the certificates for peers cannot be used"),
        (["--proxy-protocol"], "--proxy-protocol needs to know whom to believe"),
    ],
)
def test_options_that_do_not_go_together(options: list[str], problem: str) -> None:
    with pytest.raises(CommandError) as caught:
        parse(options)
    assert str(caught.value) == problem


@pytest.mark.parametrize(
    "options",
    [
        ["--peer", "256=a:1"],
        ["--peer", "a:1"],
        ["--peer", "1=a"],
        ["--peer", "1=::1:5"],
        ["--peer", "1=a..b:5"],
        ["--peer", "1=.b:5"],
        ["--admin", "9090"],
        ["--admin", "a:70000"],
        ["--node", "256"],
        ["--workers", "0"],
        ["--workers", "65"],
        ["--drain", "nan"],
        ["--trusted-proxy", "example.com"],
    ],
)
def test_options_that_are_none(options: list[str]) -> None:
    with pytest.raises(click.UsageError):
        parse(options)


def test_a_peer_may_have_an_address_with_colons(tmp_path: Path) -> None:
    option = options_by_key(command)["peer"]
    assert option.type.convert("3=[2001:db8::3]:5", None, None) == (3, Peer("2001:db8::3", 5))


def check(path: Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(command, ["check-config", str(path)])
    return result.exit_code, result.stdout, str(result.exception or "")


def test_check_config(tmp_path: Path) -> None:
    good = write(tmp_path, 'port = 1\nnodes = ["a=127.0.0.1:1,0"]\n')
    assert check(good) == (0, f"{good} is good\n", "")
    assert check(EXAMPLE)[0] == 0
    assert check(tmp_path / "absent")[2] == f"{tmp_path / 'absent'}: no such file or directory"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("port = 'x'", ":1: port: must be a whole number"),
        ('host = "0.0.0.0"', "plain connections are for this machine only"),
        (
            'cert = "absent.pem"\nkey = "absent.pem"',
            "the certificate and its key cannot be used (absent.pem: no such file or directory)",
        ),
        ('\nnodes = ["a"]', ":2: nodes: a is not NAME=HOST:PORT,ID or NAME=HOST:PORT,ID,ADMIN-PORT"),
        ('nodes = ["a=h:1,1", "b=h:2,1"]', ":1: nodes: two nodes have the id 1"),
        ("nodes = [1]", ":1: nodes: must be a list of texts in quotes"),
    ],
)
def test_check_config_says_what_is_wrong(text: str, problem: str, tmp_path: Path) -> None:
    code, output, error = check(write(tmp_path, text))
    assert code != 0
    assert output == ""
    assert error.endswith(problem)
