"""The relay's benchmark still runs: its generator, its servers, its table. No figure is judged here."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.relay import connection_tracking
from benchmarks.relay.generator import CannotBuild, Load, build
from benchmarks.relay.rounds import Bench
from benchmarks.relay.servers import relay, yardstick
from benchmarks.relay.table import ROWS, markdown
from hybrid.testing.throwaway_ca import ThrowawayCA

SHORT = ("-m", "tx", "-c", "2", "-d", "2", "-w", "0.1")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("bench")
    try:
        return Bench(build(folder), ThrowawayCA.create().write(folder))
    except CannotBuild as exc:
        pytest.skip(str(exc))


@pytest.mark.parametrize(
    ("most", "taken", "full"), [(262144, 202144, False), (262144, 202145, True), (1000, 500, False), (1000, 501, True)]
)
async def test_no_load_on_a_full_table_of_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, taken: int, full: bool
) -> None:
    monkeypatch.setattr(connection_tracking, "_FOLDER", tmp_path)
    monkeypatch.setattr(connection_tracking, "_PATIENCE", 0)
    assert not connection_tracking.is_full(), "no table"
    (tmp_path / "nf_conntrack_max").write_text(f"{most}\n")
    (tmp_path / "nf_conntrack_count").write_text(f"{taken}\n")
    assert connection_tracking.is_full() == full
    if full:
        with pytest.raises(TimeoutError):
            connection_tracking.wait_for_room()
    else:
        connection_tracking.wait_for_room()
        await connection_tracking.let_others_end()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["websockets_relay", "byte_copier", "picows_relay", "sans_io_relay"])
def test_yardsticks(bench: Bench, name: str) -> None:
    with yardstick(name, None, *(("-L",) if name == "byte_copier" else ())) as server:
        plausible(bench.load(server, *SHORT))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "tls"])
@pytest.mark.parametrize("uvloop", [True, False], ids=["uvloop", "asyncio"])
def test_ours(bench: Bench, uvloop: bool, kind: str) -> None:
    with relay(bench.tls if kind == "tls" else None, uvloop=uvloop) as server:
        plausible(bench.load(server, *SHORT))


def plausible(load: Load) -> None:
    assert load.fields["ok"] > 0
    assert 0 < load.cpu_per_transaction < 1
    assert load.frame_p50 > 0


@pytest.mark.slow
def test_memory_and_handshakes(bench: Bench) -> None:
    with relay(bench.tls) as server:
        load = bench.load(server, "-m", "idle", "-n", "20", "-c", "4", "-H", "0.1")
        assert load.fields["echoed"] == load.fields["opened"] == 20
        assert bench.load(server, "-m", "tls", "-c", "2", "-d", "2", "-w", "0.1").cpu_per_handshake > 0


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotBuild, match="apt-get install gcc libc6-dev libssl-dev"):
        build(tmp_path)


def test_a_table() -> None:
    figures = {row.subject: row.aim for row in ROWS} | {row.yardstick: 1.0 for row in ROWS if row.yardstick}
    lines = list(markdown([figures, figures]))
    assert len(lines) == len(ROWS) + 2
    assert [row.verdict(row.aim) for row in ROWS] == ["aim"] * len(ROWS)
    assert {row.verdict(row.must) for row in ROWS} <= {"must", "aim"}
    assert {row.verdict(row.must * (0.99 if row.at_least else 1.01)) for row in ROWS} == {"MISSED"}
