"""The benchmarks run and say all that they promise. What they measure is no matter of tests."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from benchmarks import __main__ as command
from benchmarks import classifying, durable, fan_out, finished, guarding, rates
from benchmarks.bare import wire
from benchmarks.echo import REQUEST
from benchmarks.results import REACH, Results, paired, table
from benchmarks.sides import Window
from benchmarks.window import Window as Counting
from benchmarks.window import children, cpu_us

PROMISED = {
    "throughput_256",
    "throughput_1024",
    "serial_p50_ms",
    "serial_p99_ms",
    "bare_throughput_256",
    "bare_throughput_1024",
    "bare_serial_p50_ms",
    "bare_serial_p99_ms",
    "throughput_ratio_256",
    "throughput_ratio_1024",
    "serial_p50_ratio",
    "throughput_ratio_256_hooked",
    "throughput_ratio_1024_hooked",
    "serial_p50_ratio_hooked",
    "agent_first_task_s",
    "agent_rss_mb",
    "finished_100k_throughput_ratio",
    "finished_100k_p50_ratio",
    "fairness_alone_p99_ms",
    "fairness_flooded_p99_ms",
    "fairness_p99_ratio",
    "classify_us",
    "classify_slowest_us",
    "permit_us",
    "guard_us",
    "finished_throughput_ratio",
    "finished_p50_ratio",
    "durable_throughput",
    "durable_throughput_ratio",
    "durable_serial_p50_ratio",
    "checkpoints_throughput",
    "checkpoints_throughput_ratio",
    "checkpoints_serial_p50_ratio",
    "fan_out_s",
    "fan_out_ratio",
    "fan_out_limited_s",
    "fan_out_coordinator_messages",
    "cpu_us_per_task_client",
    "cpu_us_per_task_coordinator",
    "cpu_us_per_task_agent",
    "cpu_us_per_task_server",
}


def test_all_promised_keys_are_there_even_when_nothing_was_measured() -> None:
    keys = msgspec.to_builtins(Results())
    assert set(keys) >= PROMISED
    assert set(keys) >= set(REACH)
    assert not any(isinstance(value, dict | list) for value in keys.values())


def test_the_table_tells_what_was_missed() -> None:
    lines = list(table(Results(throughput_ratio_256=0.5, serial_p50_ratio=1.4)))
    assert [line.split()[2] for line in lines] == ["MISSED", "ok"]


def test_ratios_are_those_of_the_rounds() -> None:
    assert paired([1, 10, 4], [2, 10, 2]) == 1


def test_the_input_has_200_bytes() -> None:
    assert len(msgspec.json.encode(REQUEST)) == 200
    assert finished.FINISHED == 100_000


@pytest.mark.parametrize("size", [497, 619, 511])
def test_bare_bodies_can_be_padded_to_the_products_sizes(size: int) -> None:
    entry = wire.Entry(
        task="t" * 32,
        entry="e" * 34,
        writer="w",
        time=1_700_000_000_000_000_000,
        prev=10**5,
        attempt=1,
        input=wire.INPUT,
        pad=wire.padding(size),
    )
    assert len(wire.encode(entry)) == size


def test_the_processes_that_a_process_has_started_count_for_it() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            assert busy.pid in children(os.getpid())
            own = cpu_us(busy.pid)
            while cpu_us(busy.pid) < own + 50_000:
                pass
            assert cpu_us(os.getpid()) >= cpu_us(busy.pid) + time.process_time() * 1e6 - 50_000
        finally:
            busy.kill()


def test_a_window_counts_neither_warm_up_nor_drain() -> None:
    window = Counting(0, 0, {})
    begun = 0.0
    assert window.ended(begun)  # starts the warm-up
    assert window.ended(begun)  # opens the window
    assert not window.ended(begun)  # counts, and closes it
    assert not window.ended(begun)
    assert window.rate(3).tasks == 1
    assert window.rate(3).cpu_us.keys() == {"client"}


def test_the_command_line_knows_its_parts() -> None:
    given = ["--quick", "--only", "imports", "rates", "--rounds", "2", "--finished", "1000000"]
    options = command.arguments(given)
    assert options.quick
    assert options.only == ["imports", "rates"]
    assert options.rounds == 2
    assert options.finished == 1_000_000
    assert command.arguments([]).finished == finished.FINISHED


def test_each_kind_of_failure_is_measured() -> None:
    results = Results()
    classifying.measure(results, rounds=1)
    assert results.classify_us is not None
    assert results.classify_slowest_us is not None
    assert 0 < results.classify_us <= results.classify_slowest_us


async def test_permits_are_measured_alone_and_around_a_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guarding, "CALLS", 5)
    results = Results()
    await guarding.measure(results, rounds=1)
    assert results.permit_us is not None
    assert results.guard_us is not None
    assert min(results.permit_us, results.guard_us) > 0


@pytest.mark.slow
@pytest.mark.integration
async def test_product_and_bare_programs_run_side_by_side(
    tmp_path: Path, nats_binary: Path
) -> None:
    results = Results()
    await rates.measure(tmp_path, results, rounds=1, window=Window(0.05, 0.1), hooked=True)
    assert results.stuck_tasks == 0
    found = {key for key, value in msgspec.to_builtins(results).items() if value is not None}
    others = (
        "agent_",
        "classify_",
        "permit_",
        "guard_",
        "fairness_",
        "finished_",
        "durable_",
        "checkpoints_",
        "fan_out_",
    )
    assert found >= {key for key in PROMISED if not key.startswith(others)}


@pytest.mark.slow
@pytest.mark.integration
async def test_steps_and_children_are_measured_against_bare_programs(
    tmp_path: Path, nats_binary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fan_out, "CHILDREN", 30)
    monkeypatch.setattr(fan_out, "LIMIT", 10)
    results = Results()
    await durable.recorded(tmp_path, results, rounds=1, window=Window(0.05, 0.1))
    await fan_out.measure(tmp_path, results, rounds=1)
    found = {key for key, value in msgspec.to_builtins(results).items() if value is not None}
    assert found >= {key for key in PROMISED if key.startswith(("checkpoints_", "fan_out_"))}
