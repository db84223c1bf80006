"""What a run found: flat, as it stands in build/bench.json, and as a table."""

from collections.abc import Iterable, Sequence
from statistics import median

import msgspec


class Results(msgspec.Struct, kw_only=True):
    """None stands for what was not measured in this run. Ratios are medians of the rounds' own ratios."""

    throughput_256: float | None = None
    """Tasks a second with 256 in flight; medians of the rounds, as all absolute figures."""
    throughput_1024: float | None = None
    serial_p50_ms: float | None = None
    serial_p99_ms: float | None = None
    bare_throughput_256: float | None = None
    """The bare program on nats-py's public calls: the reference."""
    bare_throughput_1024: float | None = None
    bare_serial_p50_ms: float | None = None
    bare_serial_p99_ms: float | None = None
    throughput_ratio_256: float | None = None
    """Product by bare program; as all throughput ratios: more is better."""
    throughput_ratio_1024: float | None = None
    serial_p50_ratio: float | None = None
    """Product by bare program; as all latency ratios: less is better."""
    bare_throughput_256_hooked: float | None = None
    """The bare program with the fast lane of our own bus: it overrides private methods of nats-py."""
    bare_throughput_1024_hooked: float | None = None
    bare_serial_p50_ms_hooked: float | None = None
    throughput_ratio_256_hooked: float | None = None
    throughput_ratio_1024_hooked: float | None = None
    serial_p50_ratio_hooked: float | None = None
    cpu_us_per_task: float | None = None
    """Microseconds of all four processes, 256 in flight."""
    cpu_us_per_task_client: float | None = None
    cpu_us_per_task_coordinator: float | None = None
    cpu_us_per_task_agent: float | None = None
    cpu_us_per_task_server: float | None = None
    bare_cpu_us_per_task: float | None = None
    bare_cpu_us_per_task_client: float | None = None
    bare_cpu_us_per_task_coordinator: float | None = None
    bare_cpu_us_per_task_agent: float | None = None
    bare_cpu_us_per_task_server: float | None = None
    agent_first_task_s: float | None = None
    """Spawn of an agent with ten new capabilities to its first handler call, a task waiting for it."""
    agent_first_task_max_s: float | None = None
    agent_restart_first_task_s: float | None = None
    """The same for the next instance of a killed agent, the task in its lane."""
    agent_rss_mb: float | None = None
    """Of that agent (10**6 bytes), idle 5 s later."""
    import_switchgear_ms: float | None = None
    """`import switchgear` alone: the front door loads nothing until it is used."""
    import_agent_ms: float | None = None
    """Everything that `Agent.run` needs."""
    finished_tasks: int | None = None
    """Tasks in the full ledger."""
    finished_100k_throughput_ratio: float | None = None
    """Full by empty ledger, 256 in flight."""
    finished_100k_p50_ratio: float | None = None
    """Full by empty ledger, serial."""
    finished_throughput_ratio: float | None = None
    """The same for another number of finished tasks than 100,000."""
    finished_p50_ratio: float | None = None
    durable_throughput: float | None = None
    """Tasks a second, 256 in flight, with `sync_interval: always`."""
    bare_durable_throughput: float | None = None
    durable_throughput_ratio: float | None = None
    durable_serial_p50_ms: float | None = None
    bare_durable_serial_p50_ms: float | None = None
    durable_serial_p50_ratio: float | None = None
    checkpoints_throughput: float | None = None
    """Tasks a second, 256 in flight, each with five recorded steps."""
    bare_checkpoints_throughput: float | None = None
    """Of a bare program that makes the same eight appends."""
    checkpoints_throughput_ratio: float | None = None
    checkpoints_serial_p50_ms: float | None = None
    checkpoints_serial_p50_ratio: float | None = None
    checkpoints_cpu_us_agent: float | None = None
    """Microseconds a task of the agent's two processes, 256 in flight."""
    bare_checkpoints_cpu_us_agent: float | None = None
    fan_out_s: float | None = None
    """One parent with 1,000 children, all open at a time: from its submission to its result."""
    fan_out_children_per_s: float | None = None
    fan_out_ratio: float | None = None
    """Children a second, by those of a bare program that runs as many tasks."""
    fan_out_limited_s: float | None = None
    """The same with at most 100 open at a time, as by default."""
    fan_out_limited_ratio: float | None = None
    fan_out_coordinator_messages: float | None = None
    """Messages that the coordinator sends a child: appends, acks, reads, wakes."""
    fairness_alone_p99_ms: float | None = None
    """Of one owner's calls, one by one, of a capability that takes 200 ms."""
    fairness_flooded_p99_ms: float | None = None
    """The same while another owner has submitted 5,000 tasks of it at once."""
    fairness_p99_ratio: float | None = None
    """Flooded by alone."""
    classify_us: float | None = None
    """Microseconds to say what a failure is: median of several kinds of exceptions."""
    classify_slowest_us: float | None = None
    """Of the kind that takes longest."""
    permit_us: float | None = None
    """Microseconds from asking a closed breaker to its verdict."""
    guard_us: float | None = None
    """The same as the block around a step: place, permit, two looks at the clock, verdict."""
    step_process_ms: float | None = None
    """Milliseconds of a process step that runs `true` in its sandbox: of the fastest tenth the slowest."""
    bare_bwrap_ms: float | None = None
    """Of a bare `bwrap` that runs `true`."""
    step_over_bare_bwrap_ms: float | None = None
    """Their difference."""
    step_dagger_ms: float | None = None
    """Milliseconds of a Dagger step that runs `true`, where an engine is given."""
    bare_dagger_ms: float | None = None
    """Of the bare SDK that runs `true` on the same engine."""
    step_over_bare_dagger_ms: float | None = None
    """Median of the differences of neighbours."""
    entry_bytes_submitted: int | None = None
    """Bodies of the product's entries; the bare program's are padded to them."""
    entry_bytes_dispatched: int | None = None
    entry_bytes_completed: int | None = None
    stuck_tasks: int | None = None
    """The product's tasks that were still open seconds after a window had closed; 0 in a sound run."""
    rounds: int | None = None


REACH: dict[str, tuple[str, float]] = {
    "throughput_ratio_256": (">=", 0.6),
    "throughput_ratio_1024": (">=", 0.6),
    "serial_p50_ratio": ("<=", 1.5),
    "agent_first_task_s": ("<=", 0.5),
    "agent_rss_mb": ("<=", 60.0),
    "fairness_p99_ratio": ("<=", 3.0),
    "classify_slowest_us": ("<=", 20.0),
    "guard_us": ("<=", 5.0),
    "step_over_bare_bwrap_ms": ("<=", 15.0),
    "step_over_bare_dagger_ms": ("<=", 10.0),
    "durable_throughput_ratio": (">=", 0.6),
    "checkpoints_throughput_ratio": (">=", 0.6),
}
"""The goals, by key."""


def paired(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the rounds' ratios."""
    return median(one / other for one, other in zip(ours, theirs, strict=True))


def table(results: Results) -> Iterable[str]:
    """Yield a line for each figure that was measured, with its reach where there is one."""
    for key, value in msgspec.structs.asdict(results).items():
        if value is None:
            continue
        shown = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
        sign, reach = REACH.get(key, ("", 0.0))
        verdict = ""
        if sign:
            met = value >= reach if sign == ">=" else value <= reach
            verdict = f"  {'ok' if met else 'MISSED'} ({sign} {reach:g})"
        yield f"{key:34} {shown:>10}{verdict}"
