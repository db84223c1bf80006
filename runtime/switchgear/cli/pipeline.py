"""`switchgear pipeline`: show, check. Reads files only: no mesh is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from switchgear.cli import exits
from switchgear.cli.common import COMMON, Common

if TYPE_CHECKING:
    from switchgear.pipelines.model import Pipeline, Step


def show(file: Path, /, *, common: Common = COMMON) -> int:
    """Draw a pipeline's steps as a graph.

    Args:
        file: A pipeline in TOML or YAML.
        common: Shared by all commands.
    """
    from switchgear.pipelines import files

    pipeline = files.load(file)

    def draw() -> str:
        from switchgear.pipelines import drawing

        return drawing.draw(pipeline)

    common.output.put("pipeline", _document(pipeline), draw)
    return exits.OK


def check(*files: Path, common: Common = COMMON) -> int:
    """Tell all that is wrong with pipeline files, by line and column.

    Args:
        files: Pipelines in TOML or YAML; of a directory, all its pipelines.
        common: Shared by all commands.
    """
    from switchgear.errors import NotFound, UsageError
    from switchgear.pipelines import files as reading
    from switchgear.pipelines.faults import PipelineFault, PipelineInvalid

    if not files:
        raise UsageError("no file to check", fix="switchgear pipeline check FILE…")
    faults: list[Any] = []
    good: list[str] = []
    for path in files:
        try:
            found = reading.load_directory(path) if path.is_dir() else [reading.load(path)]
            good += [f"{path}: {one.name} is fine" for one in found]
        except PipelineInvalid as invalid:
            faults += invalid.faults
        except NotFound as missing:
            faults.append(PipelineFault(str(path), 1, 1, "SG1530", missing.what, "", missing.fix))

    def draw() -> str:
        return "\n".join([*(str(fault) for fault in faults), *good])

    document = {"faults": [fault._asdict() for fault in faults], "ok": not faults}
    common.output.put("pipeline-check", document, draw)
    return exits.USAGE if faults else exits.OK


def _document(pipeline: Pipeline) -> dict[str, Any]:
    import msgspec

    from switchgear.pipelines import parameters

    return {
        "name": pipeline.name,
        "description": pipeline.description,
        "input_schema": msgspec.json.schema(parameters.input_type(pipeline)),
        "steps": [_step(one) for one in pipeline.steps],
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "name": step.name,
        "needs": step.needs,
        "if": step.condition,
        "matrix": step.matrix,
        "outputs": sorted(step.outputs),
    }
