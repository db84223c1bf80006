"""`python -m benchmarks.bare --url nats://…`: the whole measurement, or one role of it."""

import argparse

import uvloop

from benchmarks.bare import roles, run, wire


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.bare", description=__doc__)
    parser.add_argument("--url", required=True, help="of a broker whose SG_LEDGER may be deleted")
    parser.add_argument("--role", choices=("all", "client", "coordinator", "agent"), default="all")
    parser.add_argument("--in-flight", type=int, default=256, help="tasks at a time; 1 = serial")
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--sizes", type=int, nargs=3, default=(600, 800, 600), help="bytes")
    parser.add_argument("--reader", choices=("direct", "library"), default="direct")
    return parser.parse_args()


async def _main(options: argparse.Namespace) -> None:
    url: str = options.url
    sizes = wire.Sizes(*options.sizes)
    direct = options.reader == "direct"
    if options.role == "coordinator":
        await roles.coordinator(sizes).serve(url, direct=direct)
    elif options.role == "agent":
        await roles.agent(sizes).serve(url, direct=direct)
    else:
        way = run.measure if options.role == "all" else run.drive
        load = {"in_flight": options.in_flight, "tasks": options.tasks}
        rate = await way(url, **load, sizes=sizes, direct=direct)
        print(
            f"{rate.tasks_per_s:,.0f} tasks/s with {rate.in_flight} in flight, "
            f"p50 {rate.p50_s * 1e3:.2f} ms, p99 {rate.p99_s * 1e3:.2f} ms"
        )


if __name__ == "__main__":
    uvloop.run(_main(_arguments()))
