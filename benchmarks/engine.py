"""What a Dagger step costs beside the bare SDK on the same engine; nothing is measured where no engine is given."""

import importlib.util
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from statistics import median

from benchmarks.results import Results
from switchgear.steps.executor import Asked
from switchgear.steps.executors.dagger.executor import DaggerExecutor
from switchgear.steps.runner import Runner
from switchgear.steps.settings import StepSettings
from switchgear.steps.spec import container

IMAGE = "SWITCHGEAR_TEST_DAGGER_IMAGE"
"""An OCI archive with `sh`."""
PAIRS = 20
"""In one round."""


async def measure(results: Results, *, rounds: int) -> None:
    """Fill in milliseconds. Both sides run in one session, by turns, and nothing comes from the engine's cache."""
    archive = os.environ.get(IMAGE)
    executor = DaggerExecutor.configured(StepSettings(), os.environ)
    if executor is None or not archive or importlib.util.find_spec("dagger") is None:
        return
    runner = Runner([executor])
    asked = Asked(container(f"oci:{archive}").exec("true"), "it")

    async def step() -> None:
        # with lines that somebody wants as they come, as an agent's steps are run
        await runner.run(asked, on_line=_heard)

    try:
        await step()
        async with executor.links.use() as link:
            image = next(iter(link.images.values()))

            async def bare() -> None:
                marked = image.with_env_variable("MARK", secrets.token_hex(8))
                await marked.with_exec(["true"]).stdout()

            pairs = [(await _ms(step), await _ms(bare)) for _ in range(rounds * PAIRS)]
    finally:
        await executor.close()
    results.step_dagger_ms = median(ours for ours, _ in pairs)
    results.bare_dagger_ms = median(theirs for _, theirs in pairs)
    results.step_over_bare_dagger_ms = median(ours - theirs for ours, theirs in pairs)


def _heard(stream: str, line: str) -> None:
    """A line has come."""


async def _ms(run: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await run()
    return (time.perf_counter() - began) * 1000
