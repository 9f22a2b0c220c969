"""``tunnel-server domains``."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from tunnel_server import domains as module
from tunnel_server.complaints import CommandError
from tunnel_server.domains import domains, service_id

# Two that FIDO assigned, and hashed ones that other implementations test their derivation with.
KNOWN = {"cable.wufkweyy3uaxb.com": 266, "cable.my4kstlhndi4c.net": 0xF980, "cable.ua5v.com": 0, "cable.auth.com": 1}


@pytest.mark.parametrize(("name", "number"), KNOWN.items())
def test_known_names(name: str, number: int) -> None:
    assert service_id(name) == service_id(name.upper() + ".") == number


@pytest.mark.parametrize(
    "name", ["", "example.com", "cable.wufkweyy3uaxb.net", "wufkweyy3uaxb.com", "cable.auth.com.."]
)
def test_other_names(name: str) -> None:
    assert service_id(name) is None


def run(*arguments: str) -> tuple[str, BaseException | None]:
    result = CliRunner().invoke(domains, list(arguments))
    return result.stdout, result.exception


def test_lists_the_first() -> None:
    output, error = run("--first", "11")
    assert error is None
    lines = output.splitlines()
    assert len(lines) == 11
    assert lines[0].split()[0] == "256"
    assert lines[10].split() == ["266", "cable.wufkweyy3uaxb.com"]
    assert run("--from", "266", "--first", "1")[0].split() == ["266", "cable.wufkweyy3uaxb.com"]
    assert len(run("--from", "65535")[0].splitlines()) == 1


def test_checks_names() -> None:
    output, error = run("cable.auth.com", "example.com", "cable.wufkweyy3uaxb.com")
    assert [line.split() for line in output.splitlines()] == [
        ["1", "cable.auth.com", "assigned"],
        ["266", "cable.wufkweyy3uaxb.com"],
    ]
    assert isinstance(error, CommandError)
    assert (str(error), error.exit_code) == ("no tunnel domain: example.com", 2)


def test_resolves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "addresses", lambda name: ["192.0.2.1", "2001:db8::1"] if "wufk" in name else [])
    assert run("--resolve", "cable.wufkweyy3uaxb.com") == (
        "  266 cable.wufkweyy3uaxb.com 192.0.2.1 2001:db8::1\n",
        None,
    )
    output, error = run("--resolve", "cable.auth.com")
    assert output.split() == ["1", "cable.auth.com", "assigned", "unresolved"]
    assert isinstance(error, CommandError)
    assert error.exit_code == 7
    assert run("--resolve", "--first", "3")[1] is None


def test_asks_the_system() -> None:
    assert "127.0.0.1" in module.addresses("localhost")
    assert module.addresses("nothing.invalid") == module.addresses("x" * 70) == []
