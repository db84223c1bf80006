"""The tree of commands. Each is imported when it is called: `module:function`, with its help told here.

A command's help is its summary, its parameters (documented in the function), and an example.
"""

from __future__ import annotations

from typing import Final

from cyclopts import App, Parameter

from switchgear.cli.command import Command
from switchgear.cli.commands_of_steps import OF_STEPS

HERE: Final = "switchgear.cli"


GROUPS: Final[dict[str, str]] = {
    "task": "Submit tasks and follow them to their results.",
    "dead": "Tasks that failed for good: by cause, and how to try them again.",
    "agent": "Run agents, look at the live ones, drain them.",
    "capability": "What the mesh offers.",
    "breaker": "What instances do not call for now, and why; hold their breakers open or closed.",
    "schedule": "Tasks that are started again and again.",
    "rollout": "Move a capability's steps from one executor to another, and back.",
    "topic": "Messages that start tasks, and reach who listens.",
    "pipeline": "Step graphs in files: draw them, check them.",
    "context": "Saved settings: where meshes are, and who acts.",
}

COMMANDS: Final[tuple[Command, ...]] = (
    Command(
        "dev",
        "dev:dev",
        "Run a whole mesh on this machine for development: server, coordinator, read model, agents.",
        (
            "switchgear dev",
            "switchgear dev hello:agent other.module:agent",
            "switchgear dev hello:agent --port 4222 --fresh",
        ),
    ),
    Command(
        "demo",
        "demo:demo",
        "Check a git repository with real agents on a mesh of its own, live. Runs the repository's tests.",
        ("switchgear demo", "switchgear demo path/to/repository --ref main"),
    ),
    Command(
        "task submit",
        "task:submit",
        "Start a task. It is stored before the command returns, and runs as soon as an agent can take it.",
        (
            """switchgear task submit greet '{"name": "Ada"}' --wait""",
            "switchgear task submit greet @input.json --key order-17 --deadline 10m",
        ),
    ),
    Command(
        "task ls",
        "task:ls",
        "List your tasks, newest first.",
        ("switchgear task ls --open", "switchgear task ls --state dead --json"),
    ),
    Command(
        "task show",
        "task:show",
        "Show one task with every entry of the ledger about it.",
        ("switchgear task show 01m8272mdev9hdfjmk70paqnjk",),
    ),
    Command(
        "task watch",
        "task:watch",
        "Follow a task until its end, one line for everything that happens.",
        (
            "switchgear task watch 01m8272mdev9hdfjmk70paqnjk",
            "switchgear task watch 01m8272mdev9hdfjmk70paqnjk --json",
        ),
    ),
    Command(
        "task result",
        "task:result",
        "Wait for a task's end and print its result as JSON.",
        ("switchgear task result 01m8272mdev9hdfjmk70paqnjk --timeout 30s",),
    ),
    Command(
        "task cancel",
        "steer:cancel",
        "Ask for a task's end. Its handler is stopped, what it registered is undone, its children are cancelled.",
        ("switchgear task cancel 01m8272mdev9hdfjmk70paqnjk --reason 'wrong branch'",),
    ),
    Command(
        "task signal",
        "steer:signal",
        "Send a task a signal: a wait for this name takes it, now or later.",
        (
            "switchgear task signal 01m8272mdev9hdfjmk70paqnjk price 42",
            "switchgear task signal 01m8272mdev9hdfjmk70paqnjk files @files.json",
        ),
    ),
    Command(
        "task retry",
        "steer:retry",
        "Let a task that waits for its next attempt, or for its start, begin now.",
        ("switchgear task retry 01m8272mdev9hdfjmk70paqnjk",),
    ),
    Command(
        "task approve",
        "steer:approve",
        "Say yes to what a task asks.",
        ("switchgear task approve 01m8272mdev9hdfjmk70paqnjk --note 'looks good'",),
    ),
    Command(
        "task deny",
        "steer:deny",
        "Say no to what a task asks.",
        ("switchgear task deny 01m8272mdev9hdfjmk70paqnjk --note 'not before Monday'",),
    ),
    Command(
        "task questions",
        "steer:questions",
        "List your tasks that wait for an answer.",
        ("switchgear task questions",),
    ),
    Command(
        "dead ls",
        "dead:ls",
        "List dead tasks by their causes, the most frequent first, or the tasks of one cause.",
        ("switchgear dead ls", "switchgear dead ls --fingerprint 4f1c09d2ab3e"),
    ),
    Command(
        "dead show",
        "dead:show",
        "Show a dead task: why it died, what it was given, who has tried it again and with what.",
        ("switchgear dead show 01m8272mdev9hdfjmk70paqnjk",),
    ),
    Command(
        "dead redrive",
        "dead:redrive",
        "Try dead tasks again, as new tasks without what the dead ones recorded.",
        (
            "switchgear dead redrive 01m8272mdev9hdfjmk70paqnjk",
            """switchgear dead redrive 01m8272mdev9hdfjmk70paqnjk --input '{"name": "Ada"}'""",
            "switchgear dead redrive --fingerprint 4f1c09d2ab3e --dry-run",
        ),
    ),
    Command(
        "agent run",
        "services:agent_run",
        "Serve an agent until SIGTERM, Ctrl-C, or an order to drain.",
        ("switchgear agent run hello:agent", "switchgear agent run hello:agent --url nats://127.0.0.1:4222"),
    ),
    Command(
        "agent ls",
        "agent:ls",
        "List the live instances of all agents.",
        ("switchgear agent ls", "switchgear agent ls --json"),
    ),
    Command(
        "agent show",
        "agent:show",
        "Show an agent's instances: what they offer and what they run.",
        ("switchgear agent show hello",),
    ),
    Command(
        "agent drain",
        "agent:drain",
        "Tell an agent's instances to finish what they hold and leave.",
        ("switchgear agent drain hello", "switchgear agent drain hello-4e91af02c3 --wait"),
    ),
    Command(
        "capability ls",
        "capability:ls",
        "List what the mesh offers.",
        ("switchgear capability ls",),
    ),
    Command(
        "capability show",
        "capability:show",
        "Show one capability: its description, who offers it, and its schemas.",
        ("switchgear capability show greet",),
    ),
    Command(
        "schedule put",
        "schedule:put",
        "Start a task at each time that a cron expression names.",
        (
            "switchgear schedule put report report-sales '30 6 * * MON' @report.json",
            "switchgear schedule put check check-stock '*/5 8-18 * * *' --overlap queue",
        ),
    ),
    Command(
        "schedule ls",
        "schedule:ls",
        "List your schedules: when each is due next, and the task that it started last.",
        ("switchgear schedule ls", "switchgear schedule ls --agent reporter --json"),
    ),
    Command(
        "schedule pause",
        "schedule:pause",
        "Let a schedule start nothing until it is resumed.",
        ("switchgear schedule pause report",),
    ),
    Command(
        "schedule resume",
        "schedule:resume",
        "Let a paused schedule go on. What became due meanwhile is treated as missed.",
        ("switchgear schedule resume report",),
    ),
    Command(
        "schedule rm",
        "schedule:rm",
        "Take a schedule away. Tasks that it started go on.",
        ("switchgear schedule rm report",),
    ),
    *OF_STEPS,
    Command(
        "topic publish",
        "topic:publish",
        "Publish a message on a topic, and print its id. It starts a task of each capability that the topic triggers.",
        (
            """switchgear topic publish tagged '{"ref": "v1.2.0"}' --key v1.2.0""",
            "switchgear topic publish stock-changed @change.json --to warehouse",
        ),
    ),
    Command(
        "topic tail",
        "topic:tail",
        "Show a topic's messages as they are published.",
        ("switchgear topic tail tagged", "switchgear topic tail tagged --count 1 --json"),
    ),
    Command(
        "explain",
        "explain:explain",
        "Say why a task is where it is: who could have run it, who was chosen, what it waits for.",
        ("switchgear explain 01m8272mdev9hdfjmk70paqnjk",),
    ),
    Command(
        "doctor",
        "doctor:doctor",
        "Check the settings, the broker, the mesh and this installation, and say how to mend what is wrong.",
        ("switchgear doctor", "switchgear doctor --json"),
    ),
    Command(
        "context save",
        "context:save",
        "Save settings under a name.",
        ("switchgear context save staging --url tls://nats.example.org --principal ada",),
    ),
    Command(
        "context use",
        "context:use",
        "Use a saved context from now on.",
        ("switchgear context use staging", "switchgear context use --none"),
    ),
    Command(
        "context ls",
        "context:ls",
        "List the saved contexts.",
        ("switchgear context ls",),
    ),
    Command(
        "coordinator",
        "services:coordinator",
        "Serve as a coordinator: admits, routes and ends tasks. Run as many as you like.",
        ("switchgear coordinator --url nats://127.0.0.1:4222",),
    ),
    Command(
        "observe",
        "services:observe",
        "Serve the read model: answers lists and timelines.",
        ("switchgear observe --path history.sqlite",),
    ),
)  # fmt: skip


def build() -> App:
    """The application, with nothing of its commands imported."""
    root = App(
        name="switchgear",
        help="Agents as independent services on a message bus: run them, give them tasks, watch them.",
        help_format="plaintext",
        help_epilogue="Start here:\n  switchgear dev          a mesh for development\n"
        "  switchgear doctor       what is wrong, and how to mend it",
        version=_version,
        result_action="return_value",
        default_parameter=Parameter(negative_iterable="", negative_bool=""),
    )
    groups = {
        name: App(name=name, help=text, help_epilogue=_group_epilogue(name))
        for name, text in GROUPS.items()
    }
    for command in COMMANDS:
        group, _, name = command.path.rpartition(" ")
        (groups[group] if group else root).command(
            f"{HERE}.{command.target}",
            name=name,
            help=command.help,
            help_epilogue=epilogue(command.examples),
        )
    for group in groups.values():
        root.command(group)
    root.register_install_completion_command(  # pyright: ignore[reportUnknownMemberType] - untyped **kwargs
        help="Install completion for bash, zsh or fish.", help_flags=["--help", "-h"]
    )
    return root


def _version() -> str:
    # Read only when asked for: it costs as much as the parser.
    from importlib.metadata import version

    return f"switchgear {version('switchgear')}"


def epilogue(examples: tuple[str, ...]) -> str:
    """The examples of a command's help."""
    head = "Example" if len(examples) == 1 else "Examples"
    return f"{head}:\n" + "\n".join(f"  {example}" for example in examples)


def _group_epilogue(group: str) -> str:
    return epilogue(tuple(one.examples[0] for one in COMMANDS if one.path.startswith(f"{group} ")))


app = build()
