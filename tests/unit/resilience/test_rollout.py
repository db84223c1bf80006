"""Which executor a step runs on: stable, monotonic, reversible; and when a capability is ready."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchgear.contract import codec
from switchgear.contract.rollout import (
    MAX_RULES,
    Rollout,
    RolloutCommand,
    RolloutCounts,
    RolloutRule,
)
from switchgear.resilience import rollout as rules

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
TASKS = st.text("0123456789abcdefghjkmnpqrstvwxyz", min_size=1, max_size=30)
PERCENT = st.floats(0, 100)


def on(rule: RolloutRule, task: str) -> str:
    return rules.choose("*", rule, task, repeatable=True).first


@given(task=TASKS, percent=PERCENT)
def test_a_task_always_falls_on_the_same_side(task: str, percent: float) -> None:
    """Whoever asks, whenever, for whatever step, and after whatever else was set meanwhile."""
    rule = RolloutRule(mode="percent", percent=percent)
    again = RolloutRule(mode="percent", percent=percent, why="other words", by="other", since=NOW)
    assert on(rule, task) == on(again, task)
    assert 0 <= rules.place(task) < 100


@given(task=TASKS, one=PERCENT, other=PERCENT)
def test_raising_the_percentage_moves_no_task_back(task: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    if on(RolloutRule(mode="percent", percent=low), task) == "dagger":
        assert on(RolloutRule(mode="percent", percent=high), task) == "dagger"


@given(task=TASKS)
def test_the_ends_of_the_scale_are_all_and_none(task: str) -> None:
    assert on(RolloutRule(mode="percent", percent=0), task) == "process"
    assert on(RolloutRule(mode="percent", percent=100), task) == "dagger"


@pytest.mark.parametrize("percent", [1, 5, 25, 50, 90])
def test_a_percentage_is_about_that_part_of_the_tasks(percent: float) -> None:
    """Of ids that are alike, too."""
    rule = RolloutRule(mode="percent", percent=percent)
    hits = sum(
        on(rule, f"01m8272mdev9hdfjmk70p{number:05}") == "dagger" for number in range(20_000)
    )
    assert abs(hits / 200 - percent) < 1.5


def test_the_place_of_a_task_never_changes() -> None:
    """Another place would move tasks that are under way to the other side at an upgrade."""
    assert rules.place("01m8272mdev9hdfjmk70paqnjk") == pytest.approx(28.7152, abs=0.0001)


@pytest.mark.parametrize("serve", ["process", "dagger"])
@pytest.mark.parametrize("repeatable", [False, True])
@pytest.mark.parametrize("twice", [False, True])
def test_a_shadow_runs_beside_the_one_that_serves_where_twice_is_no_harm(
    serve: str, *, repeatable: bool, twice: bool
) -> None:
    rule = RolloutRule(mode="shadow", serve=serve, twice=twice)  # type: ignore[arg-type]
    choice = rules.choose("*", rule, "t", repeatable=repeatable)
    assert choice.first == serve
    if repeatable or twice:
        assert {choice.first, choice.shadow} == {"process", "dagger"}
    else:
        assert choice.shadow is None
        assert "not marked idempotent" in choice.decision.why


@given(task=TASKS, one=PERCENT, other=PERCENT)
def test_more_shadows_keep_those_that_there_were(task: str, one: float, other: float) -> None:
    low, high = sorted((one, other))

    def shadowed(percent: float) -> bool:
        rule = RolloutRule(mode="shadow", percent=percent)
        return rules.choose("*", rule, task, repeatable=True).shadow is not None

    assert shadowed(high) or not shadowed(low)


def test_fixed_modes_and_fallback_say_what_they_do() -> None:
    assert on(RolloutRule(mode="process"), "t") == "process"
    assert on(RolloutRule(mode="dagger"), "t") == "dagger"
    choice = rules.choose("lint*", RolloutRule(mode="fallback"), "t", repeatable=False)
    assert (choice.first, choice.fallback, choice.shadow) == ("dagger", "process", None)
    assert (choice.decision.rule, choice.decision.mode) == ("lint*", "fallback")


@pytest.mark.parametrize(
    ("error_class", "known", "falls"),
    [
        ("transient", True, True),
        ("invalid", True, True),
        ("rate-limited", True, True),
        ("step", True, False),
        ("cancelled", True, False),
        ("transient", False, False),
        ("timeout", False, False),
    ],
)
def test_only_a_known_outcome_falls_back(error_class: str, *, known: bool, falls: bool) -> None:
    """And only one that is not the step's own."""
    assert rules.falls_back(error_class, outcome_known=known) is falls  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "pattern"),
    [("lint", "lint"), ("lint-1", "lint-*"), ("lin", "li*"), ("test", "*"), ("li*", "li*")],
)
def test_the_closest_pattern_holds(key: str, pattern: str) -> None:
    rule = RolloutRule(mode="process")
    found = Rollout(capability="c", rules=dict.fromkeys(("*", "li*", "lint", "lint-*"), rule))
    assert rules.rule_of(found, key) == (pattern, rule)


def test_without_a_rule_nothing_is_decided() -> None:
    assert rules.rule_of(None, "k") is None
    narrow = Rollout(capability="c", rules={"a": RolloutRule(mode="dagger")})
    assert rules.rule_of(narrow, "k") is None


def command(verb: str, mode: str = "", pattern: str = "*", **fields: object) -> RolloutCommand:
    rule = RolloutRule(mode=mode, **fields) if mode else None  # type: ignore[arg-type]
    return RolloutCommand(verb=verb, capability="c", pattern=pattern, rule=rule)  # type: ignore[arg-type]


def after(*commands: RolloutCommand) -> Rollout:
    found: Rollout | None = None
    for one in commands:
        made = rules.changed(found, one, "ada", NOW)
        assert isinstance(made, Rollout), made
        found = made
    assert found is not None
    return found


def test_a_change_names_who_and_when_and_keeps_what_stood_before() -> None:
    found = after(command("set", "shadow"), command("set", "percent", percent=5))
    assert found.rules["*"] == RolloutRule(mode="percent", percent=5, by="ada", since=NOW)
    assert found.before["*"].mode == "shadow"


def test_back_is_what_stood_before_and_twice_back_is_where_it_was() -> None:
    steps = [command("set", "process"), command("set", "dagger"), command("back")]
    assert after(*steps).rules["*"].mode == "process"
    assert after(*steps).rules["*"].why == "back from dagger"
    assert after(*steps, command("back")).rules["*"].mode == "dagger"


def test_back_from_the_first_rule_is_no_rule() -> None:
    found = after(command("set", "dagger"), command("back"))
    assert found.rules == {}
    assert rules.rule_of(found, "k") is None
    again = after(command("set", "dagger"), command("remove"), command("back"))
    assert again.rules["*"].mode == "dagger"


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (command("set", "dagger", "a*b"), "not at its end"),
        (command("set"), "no rule to set"),
        (command("back"), "no rule for"),
        (command("remove"), "no rule for"),
        (
            command("set", "dagger", percent=5),
            "dagger is for all tasks: for 5 % of them, set percent",
        ),
        (command("set", "fallback", percent=5), "fallback is for all tasks"),
        (command("set", "percent", percent=5, serve="dagger"), "serve is for shadow"),
        (command("set", "fallback", twice=True), "twice is for shadow"),
        (command("set", "process", compare_stdout=False), "compare_stdout is for shadow"),
    ],
)
def test_a_command_that_makes_no_sense_changes_nothing(wanted: RolloutCommand, why: str) -> None:
    made = rules.changed(None, wanted, "ada", NOW)
    assert isinstance(made, str)
    assert why in made


def test_patterns_are_bounded_and_the_document_stays_small() -> None:
    full = after(*(command("set", "dagger", f"k{number}") for number in range(MAX_RULES)))
    made = rules.changed(full, command("set", "dagger", "more"), "ada", NOW)
    assert made == f"there are {MAX_RULES} patterns already"
    found: Rollout | str = full
    for number in range(MAX_RULES + 5):  # removed and set again and again
        for verb, mode, key in (
            ("remove", "", f"k{number}"),
            ("set", "shadow", f"k{number + MAX_RULES}"),
        ):
            assert isinstance(found, Rollout)
            found = rules.changed(found, command(verb, mode, key), "ada", NOW)
    assert isinstance(found, Rollout)
    assert len(found.before) <= MAX_RULES
    assert codec.decode(codec.encode(found), Rollout) == found


SHADOW = RolloutRule(mode="shadow")


def counts(
    compared: int = 50, same: int = 50, ratio: float | None = 1.2, **more: object
) -> RolloutCounts:
    return RolloutCounts(lag=0, compared=compared, same=same, ratio=ratio, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "found", "missing"),
    [
        (SHADOW, counts(), ()),
        (SHADOW, counts(49, 49), ("49 of 50 runs were compared",)),
        (SHADOW, counts(60, 59, differences={"stdout": 1}), ("1 of 60 runs differed: stdout 1",)),
        (SHADOW, counts(90, 90, skipped={"late": 9, "other": 1}), ()),
        (
            SHADOW,
            counts(90, 90, skipped={"late": 9, "the breaker of dagger was open": 2}),
            ("11 of 101 shadow runs could not be compared, 10 % are allowed",),
        ),
        (SHADOW, counts(ratio=1.6), ("dagger takes 1.60 times as long, 1.5 are allowed",)),
        (SHADOW, counts(ratio=None), ("no duration could be compared",)),
        (
            RolloutRule(mode="dagger"),
            counts(),
            ("the mode is dagger, not shadow: nothing is compared",),
        ),
    ],
)
def test_ready_is_enough_runs_no_difference_and_fast_enough(
    rule: RolloutRule, found: RolloutCounts, missing: tuple[str, ...]
) -> None:
    assert rules.readiness(rule, found) == (not missing, missing)


def test_the_ratio_is_daggers_time_by_the_process() -> None:
    one, two = timedelta(seconds=1), timedelta(seconds=2)
    assert rules.ratio("process", one, two) == 2
    assert rules.ratio("dagger", one, two) == 0.5
    assert rules.ratio("process", timedelta(0), two) is None
    assert rules.ratio("process", one, timedelta(0)) is None
