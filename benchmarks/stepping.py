"""What a process step costs beside the sandbox itself: the runner with `true`, by a bare `bwrap` with `true`."""

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence

from benchmarks.results import Results
from switchgear.steps import bubblewrap
from switchgear.steps.executor import Asked
from switchgear.steps.executors.process import ProcessExecutor
from switchgear.steps.runner import Runner
from switchgear.steps.settings import StepSettings
from switchgear.steps.spec import command

PAIRS = 30
"""In one round."""
BARE = (
    *("--unshare-all", "--unshare-user", "--die-with-parent", "--new-session", "--clearenv"),
    *("--cap-drop", "ALL", "--ro-bind", "/usr", "/usr", "--ro-bind", "/etc", "/etc"),
    *("--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"),
    *("--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"),  # noqa: S108 - inside
    *("--", "true"),
)
"""The smallest sandbox with the same isolation that runs a program of the host."""


async def measure(results: Results, *, rounds: int) -> None:
    """Fill in milliseconds, or nothing where there is no bubblewrap."""
    if await bubblewrap.probe():
        return
    bwrap = shutil.which("bwrap") or "bwrap"
    runner = Runner([ProcessExecutor(StepSettings())])
    asked = Asked(command("true"), "it")

    async def bare() -> None:
        process = await asyncio.create_subprocess_exec(
            bwrap, *BARE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        _, said = await process.communicate()
        if process.returncode:
            raise RuntimeError(said.decode())

    async def step() -> None:
        await runner.run(asked)

    await step()
    pairs = [(await _ms(step), await _ms(bare)) for _ in range(rounds * PAIRS)]
    results.step_process_ms = _fast([ours for ours, _ in pairs])
    results.bare_bwrap_ms = _fast([theirs for _, theirs in pairs])
    results.step_over_bare_bwrap_ms = results.step_process_ms - results.bare_bwrap_ms


def _fast(found: Sequence[float]) -> float:
    """The fastest tenth's slowest: others share the machine, and starting processes meets them all."""
    return sorted(found)[len(found) // 10]


async def _ms(run: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await run()
    return (time.perf_counter() - began) * 1000
