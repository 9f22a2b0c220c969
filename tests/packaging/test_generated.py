"""Manual pages and completions: current, accepted by the programs that read them, and really completing."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from scripts.make_manual import EXAMPLE, ROOT, files
from tests.packaging.programs import need

SHARE = ROOT / "share"
BASH = SHARE / "bash-completion" / "completions"

# What bash does when somebody presses the tab key: find the function, set the words, call it, look at COMPREPLY.
_PRESS_TAB = """
source "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
compopt() { echo "compopt $*"; }
$(complete -p "$1" | sed 's/.* -F \\([^ ]*\\) .*/\\1/') "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def test_the_committed_files_are_what_the_commands_make() -> None:
    made = files()
    there = [*(path for path in SHARE.rglob("*") if path.is_file()), ROOT / EXAMPLE]
    assert {str(path.relative_to(ROOT)): path.read_text() for path in there} == made, "run make manual"


@pytest.mark.parametrize("page", sorted((SHARE / "man" / "man1").iterdir()), ids=lambda path: path.name)
def test_manual_pages_have_no_warnings(page: Path) -> None:
    need("man", "groff")
    done = subprocess.run(
        ["man", "--warnings=w", "--local-file", str(page)],
        capture_output=True,
        text=True,
        env={**os.environ, "MANWIDTH": "80", "LC_ALL": "C.UTF-8"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS"):
        assert re.search(f"^{section}$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(("shell", "pattern"), [("bash", "bash*/**/*"), ("zsh", "zsh/**/*"), ("fish", "fish/**/*")])
def test_each_shell_accepts_its_completion(shell: str, pattern: str, tmp_path: Path) -> None:
    need(shell)
    scripts = [path for path in SHARE.glob(pattern) if path.is_file()]
    assert len(scripts) == 2
    for script in scripts:
        done = subprocess.run(
            [shell, "-n", str(script)], capture_output=True, text=True, env={**os.environ, "HOME": str(tmp_path)}
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("hybrid ge", ["get"]),
        ("hybrid v", ["vectors", "virtual-bluez"]),
        ("hybrid --ver", ["--version"]),
        ("hybrid get --relay-", ["--relay-name", "--relay-ca"]),
        ("hybrid phone --approve a", ["ask", "always"]),
        ("hybrid get --origin ", []),
        ("hybrid passkeys re", ["rekey", "remove", "rename", "restore"]),
        ("hybrid passkeys list --a", ["--all"]),
        ("hybrid passkeys show --vault ", ["compopt -o default"]),
        ("hybrid passkeys show re", []),
        ("hybrid get --relay-ca ", ["compopt -o default"]),
        ("hybrid vectors some", ["compopt -o default"]),
        ("hybrid nothing --", []),
        ("tunnel-server --ho", ["--host"]),
        ("tunnel-server --log-level d", ["debug"]),
        ("tunnel-server --port 0 --log-level d", ["debug"]),
        ("tunnel-server --port 0 --ho", ["--host"]),
        ("tunnel-server pro", ["proxy-config"]),
        ("tunnel-server proxy-config --bund", ["--bundle"]),
        ("tunnel-server check-config some", ["compopt -o default"]),
    ],
)
def test_bash_completes(line: str, offered: list[str]) -> None:
    need("bash")
    words = line.split(" ")
    done = subprocess.run(
        ["bash", "--norc", "-c", _PRESS_TAB, "bash", str(BASH / words[0]), *words], capture_output=True, text=True
    )
    assert done.stderr == ""
    assert [word for word in done.stdout.split("\n") if word] == offered


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("hybrid ge", "get"),
        ("hybrid phone --approve al", "always"),
        ("tunnel-server --ho", "--host"),
        ("tunnel-server --port 0 --ho", "--host"),
        ("tunnel-server check-c", "check-config"),
    ],
)
def test_fish_completes(line: str, offered: str, tmp_path: Path) -> None:
    need("fish")
    script = SHARE / "fish" / "vendor_completions.d" / f"{line.split()[0]}.fish"
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"source {script}; complete -C '{line}'"],
        capture_output=True,
        text=True,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert done.stderr == ""
    assert [entry.split("\t")[0] for entry in done.stdout.splitlines()] == [offered]


# zsh completes only on a terminal, which its module zpty makes: type the line, press tab, look at the screen.
_ZSH_PRESS_TAB = r"""
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PS1= ; fpath=($1 \$fpath); autoload -Uz compinit; compinit -u -d $2/dump; print rea''dy"
zpty -r shell screen '*ready*'
zpty -w -n shell "$3"$'\t'
zpty -r shell screen "*$4*"
print -r -- "$screen"
zpty -d shell
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "screen"),
    [
        ("hybrid ge", "hybrid get "),
        ("hybrid phone --approve al", "--approve always "),
        ("tunnel-server --ho", "--host "),
    ],
)
def test_zsh_completes(line: str, screen: str, tmp_path: Path) -> None:
    need("zsh")
    functions = SHARE / "zsh" / "site-functions"
    done = subprocess.run(
        ["zsh", "-f", "-c", _ZSH_PRESS_TAB, "zsh", str(functions), str(tmp_path), line, screen],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "HOME": str(tmp_path), "TERM": "dumb"},
    )
    assert screen in done.stdout, done.stderr
