"""`python -m benchmarks.bare --url nats://…`: the whole measurement, or one role of it."""

import argparse
from typing import get_args

import msgspec
import uvloop

from benchmarks.bare import roles, run, wire
from benchmarks.bare.link import Variant

ROLES = ("all", "client", "burst", "coordinator", "agent")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.bare", description=__doc__)
    parser.add_argument("--url", required=True, help="of a broker whose SG_LEDGER may be deleted")
    parser.add_argument("--role", choices=ROLES, default="all")
    parser.add_argument("--in-flight", type=int, default=256, help="tasks at a time; 1 = serial")
    parser.add_argument("--warm-up", type=float, default=0.5, help="seconds before (client)")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long to measure")
    parser.add_argument("--sizes", type=int, nargs="+", default=(), help="bytes")
    parser.add_argument("--checkpoints", type=int, default=0, help="of each task (agent)")
    parser.add_argument("--tasks", type=int, default=1000, help="how many (burst)")
    parser.add_argument("--variant", choices=get_args(Variant), default="library")
    parser.add_argument("--pids", default="{}", help="processes to account for (client), JSON")
    parser.add_argument("--json", action="store_true", help="print a line of JSON")
    return parser.parse_args()


async def _main(options: argparse.Namespace) -> None:
    url: str = options.url
    sizes = wire.Sizes(*options.sizes)
    if options.role == "coordinator":
        await roles.coordinator(sizes).serve(url, options.variant)
        return
    if options.role == "agent":
        await roles.agent(sizes, options.checkpoints).serve(url, options.variant)
        return
    load = run.Load(options.in_flight, options.warm_up, options.seconds)
    program = run.Program(url, options.variant, sizes)
    if options.role == "burst":
        print(await run.burst(program, options.tasks, options.in_flight), flush=True)
        return
    if options.role == "all":
        rate = await run.measure(program, load)
    else:
        rate = await run.drive(
            program, load, msgspec.json.decode(options.pids, type=dict[str, int])
        )
    if options.json:
        print(msgspec.json.encode(rate).decode(), flush=True)
        return
    print(
        f"{rate.tasks_per_s:,.0f} tasks/s with {rate.in_flight} in flight, "
        f"p50 {rate.p50_s * 1e3:.2f} ms, p99 {rate.p99_s * 1e3:.2f} ms"
    )


if __name__ == "__main__":
    uvloop.run(_main(_arguments()))
