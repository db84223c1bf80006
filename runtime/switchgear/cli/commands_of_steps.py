"""The commands about how steps are run: breakers, rollouts, pipelines."""

from __future__ import annotations

from typing import Final

from switchgear.cli.command import Command

OF_STEPS: Final[tuple[Command, ...]] = (
    Command(
        "breaker ls",
        "breaker:ls",
        "List the breakers of the live instances: what they do not call for now, and why.",
        ("switchgear breaker ls", "switchgear breaker ls --troubled --json"),
    ),
    Command(
        "breaker log",
        "breaker:log",
        "List what was ordered: who, when, which breaker, and why.",
        ("switchgear breaker log --dependency registry:docker.io",),
    ),
    Command(
        "breaker reset",
        "breaker:reset",
        "Close breakers of a dependency, forget what opened them, and hold them no more.",
        ("switchgear breaker reset dagger --why 'the engine is back'",),
    ),
    Command(
        "breaker open",
        "breaker:open_",
        "Hold breakers of a dependency open: no call is made until they are reset.",
        ("switchgear breaker open registry:docker.io --why 'we use the mirror'",),
    ),
    Command(
        "breaker close",
        "breaker:close",
        "Hold breakers of a dependency closed: every call is made, whatever fails, until they are reset.",
        ("switchgear breaker close dagger --why 'its probes are wrong' --agent builder",),
    ),
    Command(
        "rollout set",
        "rollout:set_",
        "Choose where a capability's steps run, from the next one on: processes, dagger, a part of the tasks, both.",
        (
            "switchgear rollout set python-lint shadow --why 'before we switch'",
            "switchgear rollout set python-lint percent --percent 5 --step 'ruff*'",
        ),
    ),
    Command(
        "rollout back",
        "rollout:back",
        "Let stand again what stood before the newest change.",
        ("switchgear rollout back python-lint",),
    ),
    Command(
        "rollout rm",
        "rollout:rm",
        "Take a rule away: agents decide by themselves.",
        ("switchgear rollout rm python-lint --step 'ruff*'",),
    ),
    Command(
        "rollout status",
        "rollout:status",
        "List the rules in force: who set them, when, and what they would go back to.",
        ("switchgear rollout status", "switchgear rollout status python-lint --json"),
    ),
    Command(
        "rollout report",
        "rollout:report",
        "Say what came of each rule since it was set, and whether its steps are ready for dagger.",
        ("switchgear rollout report python-lint", "switchgear rollout report --runs 200 --ratio 1.2"),
    ),
    Command(
        "pipeline show",
        "pipeline:show",
        "Draw a pipeline's steps as a graph, with its parameters and results.",
        ("switchgear pipeline show ci.toml", "switchgear pipeline show ci.toml --json"),
    ),
    Command(
        "pipeline check",
        "pipeline:check",
        "Tell all that is wrong with pipeline files, by line and column.",
        ("switchgear pipeline check ci.toml nightly.yaml", "switchgear pipeline check pipelines/"),
    ),
)  # fmt: skip
