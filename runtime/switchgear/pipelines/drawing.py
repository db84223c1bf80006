"""A pipeline as a graph of text: a line for each step, lanes for what waits for it. Pure."""

from __future__ import annotations

from switchgear.pipelines import graph
from switchgear.pipelines.checking import needs_of
from switchgear.pipelines.model import Parameter, Pipeline, Step
from switchgear.pipelines.plan import combinations


def draw(pipeline: Pipeline) -> str:
    """The whole pipeline: what it is, what it takes, its steps."""
    lines = [pipeline.name]
    if pipeline.description:
        lines[0] += f" · {' '.join(pipeline.description.split())}"
    if pipeline.parameters:
        lines += ["", "parameters"]
        width = max(len(one.name) for one in pipeline.parameters)
        lines += [f"  {_parameter(one, width)}" for one in pipeline.parameters]
    lines += ["", "steps", *(f"  {line}" for line in steps(pipeline))]
    if pipeline.outputs:
        lines += ["", "result", *(f"  {name} = {text}" for name, text in pipeline.outputs.items())]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def steps(pipeline: Pipeline) -> list[str]:
    """The graph's lines."""
    needs = needs_of(pipeline)
    order = graph.order(needs)
    after = {name: [one for one in order if name in needs[one]] for name in order}
    lanes: list[str | None] = []
    """Of each lane, the step that it leads to; None: it is free."""
    lines: list[str] = []
    for name in order:
        own = [index for index, target in enumerate(lanes) if target == name]
        if len(own) > 1:
            lines.append(_joint(lanes, own, "╯"))
        at = own[0] if own else _free(lanes, 0)
        for index in own[1:]:
            lanes[index] = None
        lanes[at] = name
        del lanes[1 + max(index for index, target in enumerate(lanes) if target) :]
        row = " ".join("○" if index == at else _lane(one) for index, one in enumerate(lanes))
        lines.append(f"{row}  {label(pipeline.step(name))}")
        below = after[name]
        lanes[at] = below[0] if below else None
        opened = [at]
        for one in below[1:]:
            place = _free(lanes, at)
            lanes[place] = one
            opened.append(place)
        if len(opened) > 1:
            lines.append(_joint(lanes, opened, "╮"))
        while lanes and lanes[-1] is None:
            lanes.pop()
    return lines


def label(step: Step) -> str:
    """A step's line beside the graph."""
    parts = [step.name]
    if step.matrix:
        parts.append(_matrix(step))
    if step.condition:
        parts.append(f"if {' '.join(step.condition.split())}")
    if step.retry.max_attempts > 1:
        parts.append(f"up to {step.retry.max_attempts} tries")
    if step.allow_failure:
        parts.append("may fail")
    taken = [".".join(one.artifact) for one in step.mounts if one.artifact is not None]
    if taken:
        parts.append(f"takes {', '.join(taken)}")
    if step.outputs:
        parts.append(f"makes {', '.join(step.outputs)}")
    return " · ".join(parts)


def _matrix(step: Step) -> str:
    axes = {axis: one for axis, one in step.matrix.items() if not isinstance(one, str)}
    shown = [
        f"{axis}={one if isinstance(one, str) else '|'.join(str(value) for value in one)}"
        for axis, one in step.matrix.items()
    ]
    if len(axes) == len(step.matrix):
        return f"\N{MULTIPLICATION SIGN}{len(combinations(step, axes))} {' '.join(shown)}"
    return f"\N{MULTIPLICATION SIGN}n {' '.join(shown)}"


def _parameter(one: Parameter, width: int) -> str:
    kind = f"list of {one.items}s" if one.kind == "list" else one.kind
    if one.choices:
        kind = "|".join(str(choice) for choice in one.choices)
    default = "required" if one.required else f"default {_value(one.default)}"
    told = [f"{one.name:{width}}", kind, default, " ".join(one.description.split())]
    return "  ".join(part for part in told if part)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "none" if value is None else repr(value)


def _free(lanes: list[str | None], start: int) -> int:
    """A lane that is free, at or right of `start`; a new one where none is."""
    for index in range(start, len(lanes)):
        if lanes[index] is None:
            return index
    lanes.append(None)
    return len(lanes) - 1


def _lane(target: str | None) -> str:
    return " " if target is None else "│"


def _joint(lanes: list[str | None], joined: list[int], end: str) -> str:
    """A line on which lanes part from the first of `joined`, or meet in it."""
    first, last = min(joined), max(joined)
    parts: list[str] = []
    for index, target in enumerate(lanes):
        if index == first:
            mark = "├"
        elif index in joined:
            mark = end if index == last else ("┬" if end == "╮" else "┴")
        elif first < index < last:
            mark = "│" if target is not None else "─"
        else:
            mark = _lane(target)
        parts.append(mark + ("─" if first <= index < last else " "))
    return "".join(parts).rstrip()
