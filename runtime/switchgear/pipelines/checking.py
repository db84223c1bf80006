"""How the steps of a pipeline hang together: needs, artifacts, matrices, and every name of every expression. Pure."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from switchgear.pipelines import expression, graph, literals, template
from switchgear.pipelines.document import Document, Faults, Path
from switchgear.pipelines.expression import FUNCTIONS, STATUS, Call, Node, SyntaxFault
from switchgear.pipelines.model import MAX_COMBINATIONS, MAX_JOBS, Mount, Pipeline, Step
from switchgear.pipelines.reading import LIMIT
from switchgear.pipelines.table import hint

GRAPH = "SG1532"
EXPRESSION = "SG1533"

FIELDS = ("outcome", "exit_code", "stdout", "outputs")
"""What expressions see of a step that is needed."""


def check(pipeline: Pipeline, faults: Faults) -> None:
    """Tell all that is wrong with a pipeline that was read."""
    needs = needs_of(pipeline)
    _check_needs(needs, faults)
    jobs = 0
    for step in pipeline.steps:
        jobs += _check_matrix(step, faults)
        before = graph.above(needs, step.name)
        for mount in step.mounts:
            if mount.artifact is not None:
                _check_artifact(pipeline, step, mount, before, faults)
        scope = _Names(pipeline, step, frozenset(before))
        for path, text in texts(faults.document, step):
            _check_text(path, text, scope, faults)
        for axis, given in step.matrix.items():
            if isinstance(given, str):
                only_parameters = _Names(pipeline, None, frozenset())
                _check_text(("steps", step.name, "matrix", axis), given, only_parameters, faults)
        if step.condition:
            _check_condition(step, scope, faults)
    if jobs > MAX_JOBS:
        faults.key(
            ("steps",), LIMIT, f"{jobs} steps, with their matrices, are more than {MAX_JOBS}"
        )
    every = _Names(pipeline, None, frozenset(needs))
    for name, text in pipeline.outputs.items():
        _check_text(("outputs", name), text, every, faults)


def needs_of(pipeline: Pipeline) -> dict[str, tuple[str, ...]]:
    """What each step needs, in the order of the file."""
    return {step.name: step.needs for step in pipeline.steps}


def texts(document: Document, step: Step) -> list[tuple[Path, str]]:
    """All texts of a step in which expressions are filled in, with their paths."""
    base: Path = ("steps", step.name)
    found: list[tuple[Path, str]] = [
        ((*base, name), text)
        for name, text in (("image", step.image), ("workdir", step.workdir), ("stdin", step.stdin))
        if text
    ]
    for number, command in enumerate(step.commands):
        found += [
            (literals.argument(document, base, number, index), text)
            for index, text in enumerate(command)
        ]
    found += [((*base, "env", name), text) for name, text in step.env.items()]
    for mount in step.mounts:
        place = (*base, "mounts", mount.path)
        if mount.git:
            found += [((*place, "git"), mount.git), ((*place, "ref"), mount.ref)]
        elif mount.local:
            found.append(((*place, "path"), mount.local))
    return found


class _Names(NamedTuple):
    """What expressions of one step may name; of no step, those of the result."""

    pipeline: Pipeline
    step: Step | None
    before: frozenset[str]


def _check_needs(needs: graph.Needs, faults: Faults) -> None:
    for name, wanted in needs.items():
        for index, one in enumerate(wanted):
            path: Path = ("steps", name, "needs", index)
            others = [other for other in needs if other != name]
            if one not in needs:
                what = f"{name} needs {one}, which is no step"
                faults.value(path, GRAPH, what, fix=hint(one, others))
            elif one in wanted[:index]:
                faults.value(path, GRAPH, f"{name} needs {one} twice")
    round_ = graph.cycle(needs)
    if round_:
        index = list(needs[round_[0]]).index(round_[1])
        what = f"the steps need each other: {' → '.join(round_)}"
        fix = "take one of them out of `needs`"
        faults.value(("steps", round_[0], "needs", index), GRAPH, what, fix=fix)


def _check_matrix(step: Step, faults: Faults) -> int:
    """Returns the number of jobs that the step stands for, as far as the file tells."""
    path: Path = ("steps", step.name, "matrix")
    number = prod(len(values) for values in step.matrix.values() if not isinstance(values, str))
    if number > MAX_COMBINATIONS:
        what = f"{number} combinations are more than {MAX_COMBINATIONS}"
        faults.key(path, LIMIT, what, fix="split the step, or take an axis out")
    for index, row in enumerate(step.exclude):
        for axis, value in row.items():
            values = step.matrix.get(axis, "")
            if not isinstance(values, str) and value not in values:
                what = f"{value!r} is no value of {axis}, so this excludes nothing"
                faults.value(("steps", step.name, "exclude", index, axis), GRAPH, what)
    return max(number, 1)


def _check_artifact(
    pipeline: Pipeline, step: Step, mount: Mount, before: set[str], faults: Faults
) -> None:
    assert mount.artifact is not None
    name, output = mount.artifact
    path: Path = ("steps", step.name, "mounts", mount.path, "artifact")
    if name not in needs_of(pipeline):
        known = sorted(before)
        faults.value(path, GRAPH, f"there is no step {name}", fix=hint(name, known))
        return
    if name not in before:
        what = f"{step.name} mounts what {name} makes, and does not need it"
        faults.value(path, GRAPH, what, fix=f'add "{name}" to `needs`')
    outputs = pipeline.step(name).outputs
    if output not in outputs:
        what = f"{name} has no output {output!r}"
        fix = hint(output, outputs) or f"declare it: outputs.{output} = a path"
        faults.value(path, GRAPH, what, fix=fix)


def _check_condition(step: Step, scope: _Names, faults: Faults) -> None:
    path: Path = ("steps", step.name, "if")
    document = faults.document
    text = step.condition
    if not template.is_plain(text):
        place = document.inside(path, text, text.index("${{"))
        what, fix = "`if` is an expression, without ${{ }}", "write it bare"
        faults.add(place, EXPRESSION, what, fix=fix)
        return
    try:
        node = expression.parse(text)
    except SyntaxFault as fault:
        place = document.inside(path, text, fault.offset)
        faults.add(place, EXPRESSION, fault.what, fix=fault.fix)
        return
    kind = _kind(expression.chain(node), scope)
    if kind:
        what = f"a condition is true or false, and this is a {kind}"
        faults.add(document.inside(path, text, 0), EXPRESSION, what, fix="compare it: … != ''")
    _check_node(node, scope, _Text(faults, path, text, 0), in_condition=True)


def _kind(found: tuple[list[str], list[int]] | None, scope: _Names) -> str:
    """What a name alone is, where it is known to be neither true nor false; else empty."""
    names = found[0] if found else [""]
    if names[0] == "params":
        kinds = {one.name: one.kind for one in scope.pipeline.parameters}
        kind = kinds.get(".".join(names[1:]), "boolean")
        return "" if kind == "boolean" else kind
    return "text or a number" if names[0] in ("steps", "task", "pipeline") else ""


def _check_text(path: Path, text: str, scope: _Names, faults: Faults) -> None:
    try:
        holes = template.holes(text)
    except SyntaxFault as fault:
        place = faults.document.inside(path, text, fault.offset)
        faults.add(place, EXPRESSION, fault.what, fix=fault.fix)
        return
    for hole in holes:
        _check_node(hole.node, scope, _Text(faults, path, text, hole.offset), in_condition=False)


class _Text(NamedTuple):
    """Where an expression stands."""

    faults: Faults
    path: Path
    text: str
    base: int

    def tell(self, offset: int, what: str, fix: str = "") -> None:
        place = self.faults.document.inside(self.path, self.text, self.base + offset)
        self.faults.add(place, EXPRESSION, what, fix=fix)


def _check_node(node: Node, scope: _Names, text: _Text, *, in_condition: bool) -> None:
    """Tell unknown functions and names, of the node and below it."""
    found = expression.chain(node)
    if found is not None:
        _check_name(found[0], found[1], scope, text)
        if isinstance(node, expression.Member) and not isinstance(node.key, expression.Literal):
            _check_node(node.key, scope, text, in_condition=in_condition)
        return
    if isinstance(node, Call):
        _check_call(node, text, in_condition=in_condition)
    for one in expression.below(node):
        _check_node(one, scope, text, in_condition=in_condition)


def _check_call(node: Call, text: _Text, *, in_condition: bool) -> None:
    name = node.function
    if name not in FUNCTIONS:
        text.tell(node.offset, f"there is no function {name}", hint(name, FUNCTIONS))
    elif name in STATUS and not in_condition:
        text.tell(node.offset, f"{name}() can only stand in `if`")
    elif len(node.arguments) != FUNCTIONS[name]:
        number = f"{FUNCTIONS[name]} argument{'' if FUNCTIONS[name] == 1 else 's'}"
        what = f"{name} takes {number}, not {len(node.arguments)}"
        text.tell(node.offset, what)


def _check_name(names: list[str], offsets: list[int], scope: _Names, text: _Text) -> None:
    head, rest = names[0], names[1:]
    tops = ("params", "matrix", "steps", "pipeline", "task")
    if head not in tops:
        text.tell(offsets[0], f"{head} is not known", hint(head, tops))
        return
    if not rest:
        text.tell(offsets[0], f"{head} is no value", f"name one of its fields: {head}.NAME")
        return
    if head == "steps":
        _check_step(rest, offsets[1:], scope, text)
        return
    known = _known(head, scope)
    if rest[0] not in known:
        what = {"params": "parameter", "matrix": "axis of this step's matrix"}.get(head, "field")
        text.tell(offsets[1], f"there is no {what} {rest[0]}", hint(rest[0], known))


def _known(head: str, scope: _Names) -> list[str]:
    if head == "params":
        return [one.name for one in scope.pipeline.parameters]
    if head == "matrix":
        return list(scope.step.matrix) if scope.step is not None else []
    return {"pipeline": ["name"], "task": ["id"]}[head]


def _check_step(names: list[str], offsets: list[int], scope: _Names, text: _Text) -> None:
    """`steps.NAME.field`."""
    name, known = names[0], sorted(scope.before)
    if name not in known:
        steps = {one.name for one in scope.pipeline.steps}
        if name in steps and scope.step is not None:
            what = f"{scope.step.name} does not need {name}, which may end later"
            text.tell(offsets[0], what, f'add "{name}" to `needs`')
        else:
            text.tell(offsets[0], f"there is no step {name}", hint(name, known))
        return
    step, rest = scope.pipeline.step(name), names[1:]
    if not rest or rest[0] not in FIELDS:
        at = offsets[1] if rest else offsets[0]
        what = f"a step has no {rest[0]}" if rest else "a step is no value"
        text.tell(at, what, hint(rest[0], FIELDS) if rest else f"name a field: {', '.join(FIELDS)}")
    elif step.matrix and rest[0] != "outcome":
        text.tell(offsets[1], f"{name} has a matrix, and so more than one {rest[0]}")
    elif rest[0] == "outputs" and (len(rest) == 1 or rest[1] not in step.outputs):
        at = offsets[2] if len(rest) > 1 else offsets[1]
        fix = hint(rest[1] if len(rest) > 1 else "", step.outputs)
        text.tell(at, f"{name} has no such output", fix)
