"""The protocol's invariants, checked over a whole ledger and what was witnessed beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from switchgear.contract import entries, limits
from switchgear.contract.stored import Stored, expectation
from switchgear.lifecycle.history import History
from switchgear.lifecycle.retrying import pause as right_pause
from switchgear.lifecycle.retrying import why_final
from switchgear.tasks.scopes import scope_of
from tests.programs import executions
from tests.programs.program import ends, total
from tests.programs.record import Recording, Submission

POISON = "SG1512"
"""The code of an attempt whose holders died."""
ENDS = frozenset({"rejected", "completed", "dead", "cancelled", "expired"})


@dataclass
class Ledger:
    """Every scope's entries and their fold."""

    histories: dict[str, History] = field(default_factory=dict[str, History])
    stored: dict[str, list[Stored]] = field(default_factory=dict[str, list[Stored]])

    @classmethod
    def read(cls, everything: Iterable[Stored]) -> Ledger:
        """Fold all entries, in ledger order."""
        found = cls()
        for one in everything:
            scope = scope_of(one.subject)
            found.stored.setdefault(scope, []).append(one)
            history = found.histories.setdefault(scope, History(scope))
            history.add(one)
        return found

    @property
    def tasks(self) -> dict[str, History]:
        """By task id."""
        return {history.task: history for history in self.histories.values()}


def violations(ledger: Ledger, recording: Recording, *, clock_faults: bool = False) -> list[str]:
    """What is wrong; empty when nothing is."""
    found: list[str] = []
    found.extend(_no_honest_entry_is_void(ledger))
    found.extend(_nothing_acknowledged_is_lost(ledger, recording))
    found.extend(_nothing_is_stuck(ledger, oversleeping(ledger) if clock_faults else frozenset()))
    found.extend(_results_never_change(ledger, recording))
    found.extend(_ends_are_expected(ledger, recording))
    found.extend(_attempts_increase(ledger))
    found.extend(_retries_wait(ledger))
    found.extend(_one_success_a_key(ledger))
    found.extend(_poison_is_counted(ledger))
    found.extend(_children_end_with_their_parents(ledger))
    found.extend(_children_are_found_again(ledger))
    found.extend(_signals_are_taken_once(ledger))
    found.extend(_undos_run(ledger))
    found.extend(executions.violations(ledger.tasks, recording, clock_faults=clock_faults))
    return found


def _no_honest_entry_is_void(ledger: Ledger) -> Iterator[str]:
    """Nobody forges here: what the broker took must count, or a writer broke the rules."""
    for history in ledger.histories.values():
        for void in history.voids:
            yield f"void entry {void.stored.subject} at {void.stored.sequence}: {void.reason}"
        if history.gap:
            yield f"{history.scope} has a gap"
    for scope, stored in ledger.stored.items():
        last = 0
        for one in stored:
            if expectation(one.headers, scope) != last:
                yield f"entry {one.subject} at {one.sequence} does not expect {last}"
            last = one.sequence


def _nothing_acknowledged_is_lost(ledger: Ledger, recording: Recording) -> Iterator[str]:
    tasks = ledger.tasks
    # A full ledger gets rid of what it rejected, once its client has had the time to hear of it (rule 19).
    rejected = {seen.task for seen in recording.seen if seen.state == "rejected"}
    for submission in recording.submissions:
        if submission.task not in tasks and submission.task not in rejected:
            yield f"lost: {submission.task} was acknowledged and is not in the ledger"


def _nothing_is_stuck(ledger: Ledger, oversleeping: Collection[str]) -> Iterator[str]:
    for history in ledger.histories.values():
        if history.ended is None and history.task not in oversleeping:
            waits = f" ({history.waiting.reason})" if history.waiting is not None else ""
            yield f"stuck: {history.capability} {history.task} is {history.state}{waits}"


def oversleeping(ledger: Ledger) -> set[str]:
    """The open tasks that wait for a time which a clock far ahead has set, and those that wait for these.

    A sleep lasts by the clock of the agent that begins it, so nothing is wrong with them yet.
    """
    found: set[str] = set()
    tasks = ledger.tasks
    for history in tasks.values():
        task = history.task if history.ended is None and _is_misdated(history) else ""
        while task and task not in found:
            found.add(task)
            submission = tasks[task].submitted if task in tasks else None
            task = submission.parent.task if submission and submission.parent else ""
    return found


def _is_misdated(history: History) -> bool:
    newest = history.valid[-1] if history.valid else None
    if newest is None or not isinstance(newest.entry, entries.Waiting):
        return False
    by_agent = [newest.entry.time, *(wait.begun for wait in newest.entry.waits)]
    return max(by_agent) - newest.stored.time > timedelta(seconds=executions.CLOCKS)


def _results_never_change(ledger: Ledger, recording: Recording) -> Iterator[str]:
    for seen in recording.seen:
        history = ledger.tasks.get(seen.task)
        if history is None or history.ended is None:
            continue
        if seen.state != history.ended:
            yield f"{seen.task} was told as {seen.state}, and is {history.ended}"
        end = history.end
        told = None if seen.value is None else str(seen.value).encode()
        if isinstance(end, entries.Completed) and told not in (None, bytes(end.output)):
            yield f"{seen.task} was told to give {seen.value}, and gave {bytes(end.output)!r}"


def _ends_are_expected(ledger: Ledger, recording: Recording) -> Iterator[str]:
    for submission in recording.submissions:
        history = ledger.tasks.get(submission.task)
        if history is None or history.ended is None:
            continue
        if history.ended not in _allowed(submission, ledger, recording):
            error = history.failure.error.message if history.failure else ""
            yield f"{submission.task} ended as {history.ended}: {error}"
        end = history.end
        if isinstance(end, entries.Completed):
            wanted = str(total(submission.program)).encode()
            if bytes(end.output) != wanted:
                yield f"{submission.task} gave {bytes(end.output)!r} instead of {wanted!r}"


def _allowed(submission: Submission, ledger: Ledger, recording: Recording) -> set[str]:
    allowed = set(ends(submission.program))
    if "ledger full" in recording.faults:
        allowed.add("rejected")
    if submission.cancelled:
        allowed.add("cancelled")
    if submission.deadline is not None:
        allowed |= {
            "expired",
            "dead",
            "cancelled",
            "rejected",
        }  # rejected: nobody admitted it in time
    root = submission.task
    run = [one for one in ledger.histories.values() if _root(one) == root]
    if any(map(_was_poison, run)):
        allowed.add("dead")
    return allowed


def _was_poison(history: History) -> bool:
    """Whether it took down its agents once too often; `_poison_is_counted` judges the count."""
    failures = (one.entry for one in history.valid if isinstance(one.entry, entries.AttemptFailed))
    return any(failure.error.code == "SG1512" for failure in failures)


def _root(history: History) -> str:
    root = history.submitted.root if history.submitted is not None else ""
    return root or history.task


def _attempts_increase(ledger: Ledger) -> Iterator[str]:
    for history in ledger.histories.values():
        last = 0
        for _, _, entry in history.valid:
            if isinstance(entry, entries.Dispatched):
                if entry.attempt != last + 1:
                    yield f"{history.task}: attempt {entry.attempt} follows {last}"
                last = entry.attempt
        if history.failures > history_limit(history):
            yield f"{history.task} failed {history.failures} times"


def history_limit(history: History) -> int:
    """How often the task's attempts may fail: its policy's, one more for an undo run."""
    policy = history.dispatched.retry.max_attempts if history.dispatched is not None else 1
    return policy + 1


def _retries_wait(ledger: Ledger) -> Iterator[str]:
    """No attempt begins before its wait is over."""
    for history in ledger.histories.values():
        failed = None
        waiting = None
        for stored, _, entry in history.valid:
            if isinstance(entry, entries.AttemptFailed):
                failed = (stored, entry)
            elif isinstance(entry, entries.Waiting):
                waiting = entry
            elif isinstance(entry, entries.Dispatched):
                if waiting is not None and not entry.undoing:
                    yield from _early(history, waiting, stored)
                if failed is not None and not entry.undoing:
                    yield from _after_failure(history, failed[1], stored, failed[0], entry)
                failed = waiting = None


def _early(history: History, waiting: entries.Waiting, stored: Stored) -> Iterator[str]:
    only = len(waiting.waits) < 2 and waiting.reason in ("retry", "start", "timer")
    until = waiting.until if only else None
    if until is not None and until - stored.time > timedelta(seconds=executions.CLOCKS):
        yield f"{history.task}: dispatched at {stored.time}, before {waiting.until}"


def _after_failure(
    history: History,
    failure: entries.AttemptFailed,
    stored: Stored,
    failed: Stored,
    entry: entries.Dispatched,
) -> Iterator[str]:
    if why_final(failure.error, entry.retry, failure.status.failures):
        yield f"{history.task}: attempt {entry.attempt} follows a final failure"
    pause = right_pause(failure.error, entry.retry, history.task, failure.status.failures)
    if stored.time - failed.time < pause - timedelta(seconds=executions.CLOCKS):
        yield f"{history.task}: attempt {entry.attempt} came after {stored.time - failed.time}"


def _one_success_a_key(ledger: Ledger) -> Iterator[str]:
    for history in ledger.histories.values():
        done: Counter[tuple[str, str]] = Counter()
        for _, _, entry in history.valid:
            if isinstance(entry, entries.Checkpoint) and entry.ok:
                done[entry.kind, entry.key] += 1
        for (kind, key), count in done.items():
            if count > 1:
                yield f"{history.task}: {kind} {key} was recorded {count} times"


def _poison_is_counted(ledger: Ledger) -> Iterator[str]:
    for history in ledger.histories.values():
        if history.crashes > limits.MAX_CRASHES + 1:
            yield f"{history.task}: {history.crashes} crashes in one attempt"
        undoing = False
        for _, _, entry in history.valid:
            if isinstance(entry, entries.Dispatched):
                undoing = entry.undoing  # its attempt ends with the failure that called for it
            # A parent fails with the class of its child's failure, and a code of its own.
            if (
                isinstance(entry, entries.AttemptFailed)
                and entry.error.code == POISON
                and not undoing
            ):
                crashes = _crashes_before(history, entry)
                if crashes != limits.MAX_CRASHES + 1:
                    yield f"{history.task}: given up as poison after {crashes} crashes"


def _crashes_before(history: History, end: entries.Entry) -> int:
    count = 0
    for _, _, entry in history.valid:
        if entry is end:
            return count
        if isinstance(entry, entries.Dispatched):
            count = 0
        elif isinstance(entry, entries.TakenOver):
            count += entry.how == "crash"
    return count


def _children_end_with_their_parents(ledger: Ledger) -> Iterator[str]:
    """Nothing of a child is dispatched long after its parent's end."""
    for history in ledger.histories.values():
        if history.parent is None or history.submitted is None or history.submitted.detached:
            continue
        parent = ledger.histories.get(history.parent)
        if parent is None:
            yield f"{history.task} has an unknown parent"


def _children_are_found_again(ledger: Ledger) -> Iterator[str]:
    """Under one key a parent has one child, and another one after each of its failures."""
    children: Counter[tuple[str, str]] = Counter()
    for history in ledger.histories.values():
        parent = history.submitted.parent if history.submitted is not None else None
        if parent is not None:
            children[parent.task, f"{parent.key} {history.task.partition('-')[2]}"] += 1
    tasks = ledger.tasks
    for (parent_id, key), count in children.items():
        failures = tasks[parent_id].failures if parent_id in tasks else 0
        if count > 1 + failures:
            yield f"{parent_id} has {count} children under {key}"


def _signals_are_taken_once(ledger: Ledger) -> Iterator[str]:
    for history in ledger.histories.values():
        taken = Counter(
            entry.signal
            for _, _, entry in history.valid
            if isinstance(entry, entries.Checkpoint) and entry.signal
        )
        for sequence, count in taken.items():
            if count > 1:
                yield f"{history.task}: signal {sequence} was taken {count} times"


def _undos_run(ledger: Ledger) -> Iterator[str]:
    """What was registered and not dropped is undone by who ends the task; only a coordinator's end may lack it."""
    for history in ledger.histories.values():
        registered = Counter[str]()
        for _, _, entry in history.valid:
            if isinstance(entry, entries.Checkpoint):
                registered[entry.key] += entry.kind == "undo-registered"
                registered[entry.key] -= entry.kind in ("undo-done", "undo-dropped")
        left = sum(count > 0 for count in registered.values())
        poisoned = history.crashes > limits.MAX_CRASHES
        if history.ended == "dead" and left and not poisoned:
            yield f"{history.task} is dead with {left} undos not run"
        hold = getattr(history.end, "hold", 0)
        if history.ended in ("cancelled", "expired") and left and hold and not poisoned:
            yield f"{history.task} was ended by its holder with {left} undos not run"
