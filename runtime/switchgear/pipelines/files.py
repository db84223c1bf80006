"""Pipelines from files: by the name's ending TOML or YAML, one file or a directory of them."""

from __future__ import annotations

from pathlib import Path

from switchgear.errors import NotFound
from switchgear.pipelines import checking, reading, toml
from switchgear.pipelines.document import Document, Faults
from switchgear.pipelines.faults import PipelineFault, PipelineInvalid
from switchgear.pipelines.model import Pipeline

MAX_FILE = 1024 * 1024
"""Bytes."""
ENDINGS = (".toml", ".yaml", ".yml")


def load(path: str | Path) -> Pipeline:
    """The pipeline in a file. Raises PipelineInvalid with all its faults, NotFound, ExtraMissing."""
    return parse(str(path), _read(Path(path)))


def parse(file: str, text: str) -> Pipeline:
    """The pipeline in a text; `file` names it, and tells its format by its ending. Raises as `load`."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    faults = Faults(document(file, text))
    pipeline = reading.read(faults.document, faults, Path(file).stem)
    checking.check(pipeline, faults)
    if faults:
        raise PipelineInvalid(faults.found)
    return pipeline


def document(file: str, text: str) -> Document:
    """The values of a text, and their places. Raises PipelineInvalid."""
    if file.endswith(".toml"):
        return toml.read(file, text)
    from switchgear.pipelines import yaml

    return yaml.read(file, text)


def load_directory(directory: str | Path) -> list[Pipeline]:
    """The pipelines of a directory's files, by their names; folders in it are left alone.

    Raises PipelineInvalid with the faults of all files, NotFound for no directory or none in it.
    """
    home = Path(directory)
    if not home.is_dir():
        raise NotFound(f"there is no directory {directory}")
    paths = sorted(path for path in home.iterdir() if path.suffix in ENDINGS and path.is_file())
    if not paths:
        raise NotFound(f"no pipeline in {directory}", fix=f"files end in {', '.join(ENDINGS)}")
    found: list[Pipeline] = []
    faults: list[PipelineFault] = []
    taken: dict[str, Path] = {}
    for path in paths:
        try:
            pipeline = load(path)
        except PipelineInvalid as invalid:
            faults += invalid.faults
            continue
        if pipeline.name in taken:
            what = f"the pipeline {pipeline.name} is also in {taken[pipeline.name].name}"
            faults.append(
                PipelineFault(str(path), 1, 1, "SG1531", what, "", "give one of them another name")
            )
        taken[pipeline.name] = path
        found.append(pipeline)
    if faults:
        raise PipelineInvalid(faults)
    return found


def _read(path: Path) -> str:
    if path.is_dir():
        raise _refused(path, "this is a directory", fix="name one of the files in it")
    if path.suffix not in ENDINGS:
        fix = f"name it with one of {', '.join(ENDINGS)}"
        raise _refused(path, "this is no TOML or YAML file", fix=fix)
    try:
        with path.open("rb") as opened:
            data = opened.read(MAX_FILE + 1)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except OSError as error:
        raise _refused(path, "the file cannot be read", why=error.strerror or str(error)) from error
    if len(data) > MAX_FILE:
        raise _refused(path, f"the file is larger than {MAX_FILE} bytes", code="SG1534")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _refused(path, "the file is not UTF-8", line=line, why=str(error)) from error


def _refused(
    path: Path, what: str, *, code: str = "SG1530", line: int = 1, why: str = "", fix: str = ""
) -> PipelineInvalid:
    return PipelineInvalid([PipelineFault(str(path), line, 1, code, what, why, fix)])
