"""What to run, as a value."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from switchgear.errors import UsageError
from switchgear.steps.spec import DEFAULT_OUTPUT, StepSpec, command


def test_each_call_gives_a_new_value_and_keeps_what_was_set_before() -> None:
    plain = command("ruff", "check", Path("src"))
    full = (
        plain.workdir("/src")
        .env(B="2", A="1")
        .env(B="3")
        .limits(timeout=timedelta(seconds=5))
        .limits(memory=1024)
        .expect(1, 0)
        .stdin("text")
    )
    assert plain == StepSpec(commands=(("ruff", "check", "src"),))
    assert full == StepSpec(
        commands=(("ruff", "check", "src"),),
        directory="/src",
        environment=(("A", "1"), ("B", "3")),
        exit_codes=(0, 1),
        time_limit=timedelta(seconds=5),
        memory_limit=1024,
        output_limit=DEFAULT_OUTPUT,
        input="text",
    )


def test_a_spec_survives_the_codec_and_is_equal_by_content() -> None:
    spec = command("make").env(A="1").limits(timeout=timedelta(minutes=1))
    again = msgspec.json.decode(msgspec.json.encode(spec), type=StepSpec)
    assert again == spec
    assert len({again, spec}) == 1


@pytest.mark.parametrize("args", [(), ("",), ("a\0b",)])
def test_a_command_that_cannot_be_run_is_refused(args: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        command(*args)


def test_settings_that_make_no_sense_are_refused() -> None:
    spec = command("true")
    with pytest.raises(UsageError, match="timeout"):
        spec.limits(timeout=timedelta(0))
    with pytest.raises(UsageError, match="memory"):
        spec.limits(memory=0)
    with pytest.raises(UsageError, match="output"):
        spec.limits(output=-1)
    with pytest.raises(UsageError, match="exit code"):
        spec.expect()
    with pytest.raises(UsageError, match="NUL"):
        spec.env(A="\0")
    with pytest.raises(UsageError, match="name"):
        spec.env(**{"A=B": "1"})
