"""How often, when and why steps, undos and handlers were executed, judged by what the ledger says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from switchgear.contract import entries
from switchgear.lifecycle.history import History
from tests.programs.program import Fail, Program, Step, Undo, parts
from tests.programs.record import Execution, Recording

CLOCKS = 1.0
"""Seconds by which a process' clock may be wrong without a fault."""
Tasks = Mapping[str, History]
"""By task id."""


def violations(tasks: Tasks, recording: Recording, *, clock_faults: bool) -> list[str]:
    """What is wrong with the executions; empty when nothing is."""
    found = [
        *_nothing_from_nowhere(tasks, recording),
        *_recorded_steps_do_not_run_again(tasks, recording),
        *_executions_are_bounded(tasks, recording),
    ]
    if not clock_faults:
        found.extend(_nothing_starts_after_its_deadline(tasks, recording))
    return found


def _nothing_from_nowhere(tasks: Tasks, recording: Recording) -> Iterator[str]:
    for execution in recording.executions:
        if execution.task not in tasks:
            yield f"{execution.task} was executed and never submitted"


def _by_key(recording: Recording) -> dict[tuple[str, str, str], list[Execution]]:
    found: dict[tuple[str, str, str], list[Execution]] = defaultdict(list)
    for one in recording.executions:
        found[one.task, one.what, one.key].append(one)
    return found


def _recorded_steps_do_not_run_again(tasks: Tasks, recording: Recording) -> Iterator[str]:
    """A holder whose hold is younger than a recorded success has read it."""
    executions = _by_key(recording)
    for history in tasks.values():
        for stored, _, entry in history.valid:
            if not isinstance(entry, entries.Checkpoint) or not entry.ok:
                continue
            what = {"step": "step", "undo-done": "undo"}.get(entry.kind)
            for one in executions.get((history.task, what or "", entry.key), ()):
                if one.fence > stored.sequence:
                    yield f"{history.task}: {entry.key} ran again under {one.fence}"


def _executions_are_bounded(tasks: Tasks, recording: Recording) -> Iterator[str]:
    """One execution of each step, one more for each meant failure and each take-over or resume; one without faults."""
    programs = {one.task: one.program for one in recording.submissions}
    planned = _planned(programs.values())
    for (task, what, key), executions in _by_key(recording).items():
        history = tasks.get(task)
        if what != "step" or history is None:
            continue
        taken = sum(isinstance(entry, entries.TakenOver) for _, _, entry in history.valid)
        allowed = 1 + planned.get(key, 0) + history.failures + taken + (history.attempt - 1)
        if not recording.injected and not history.failures and not history.cancelling:
            allowed = 1 + planned.get(key, 0)
        # a broker that forgets its counts hands a task over again that its holder never wrote about
        allowed += _outages(history, executions, recording)
        allowed += recording.faults.get("server restarts", 0) + recording.faults.get("lane lost", 0)
        if len(executions) > allowed:
            yield f"{task}: {key} ran {len(executions)} times, {allowed} are allowed"


def _outages(history: History, executions: list[Execution], recording: Recording) -> int:
    """How many restarts can have handed a step's task over again: those between its hold and its last execution.

    Its first execution may begin after the restart, with what was delivered before.
    """
    holds = {one.fence for one in executions}
    given = min(
        (one.stored.time.timestamp() for one in history.valid if one.stored.sequence in holds),
        default=0.0,
    )
    last = max(one.at for one in executions)
    return sum(given < one.ended and one.began < last for one in recording.outages)


def _planned(programs: Iterable[Program]) -> dict[str, int]:
    found: dict[str, int] = {}
    for program in programs:
        for op in parts(program):
            if isinstance(op, Step):
                found[op.key] = op.fails
            elif isinstance(op, Fail):
                found[op.key] = min(op.times, 20)
            elif isinstance(op, Undo):
                found[op.key] = 0
    return found


def _nothing_starts_after_its_deadline(tasks: Tasks, recording: Recording) -> Iterator[str]:
    for one in recording.executions:
        history = tasks.get(one.task)
        submission = history.submitted if history is not None else None
        if one.what != "handler" or submission is None or submission.deadline is None:
            continue
        if one.at > submission.deadline.timestamp() + CLOCKS:
            yield f"{one.task} began after its deadline"
