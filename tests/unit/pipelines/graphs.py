"""Random pipelines that are valid: steps in any order, each needing some that have no way back to it."""

from __future__ import annotations

from hypothesis import strategies as st

from switchgear.pipelines.model import Pipeline, Step


@st.composite
def pipelines(draw: st.DrawFn, *, max_steps: int = 8) -> Pipeline:
    """A pipeline of up to so many steps; some have a matrix, a condition, or may fail."""
    names = [f"s{index}" for index in range(draw(st.integers(1, max_steps)))]
    steps: list[Step] = []
    for index, name in enumerate(names):
        needs = draw(st.lists(st.sampled_from(names[:index]), unique=True)) if index else []
        values = draw(st.integers(0, 3))
        steps.append(
            Step(
                name=name,
                needs=tuple(needs),
                commands=((name,),),
                condition=draw(st.sampled_from(("", "", "true", "false", "always()", "failed()"))),
                matrix={"v": tuple(range(values))} if values else {},
                allow_failure=draw(st.booleans()),
            )
        )
    return Pipeline(
        name="random",
        concurrency=draw(st.integers(1, 4)),
        fail_fast=draw(st.booleans()),
        steps=tuple(draw(st.permutations(steps))),
    )
