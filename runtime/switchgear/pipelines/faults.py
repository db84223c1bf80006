"""What is wrong in a pipeline file, with its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from switchgear.errors import UsageError


class PipelineFault(NamedTuple):
    """One thing that is wrong in a pipeline file, and where; prints as `file:line:column: code: …`."""

    file: str
    line: int
    """From 1."""
    column: int
    """From 1, in characters."""
    code: str
    what: str
    why: str = ""
    fix: str = ""

    def __str__(self) -> str:
        text = f"{self.file}:{self.line}:{self.column}: {self.code}: {self.what}"
        if self.why:
            text += f" because {self.why}"
        return f"{text}. Fix: {self.fix}" if self.fix else text


class PipelineInvalid(UsageError):
    """A pipeline file that cannot be used; `faults` is all that is wrong, each with its place and code."""

    code = "SG1530"
    default_fix = "`switchgear pipeline check FILE` lists what is wrong"

    def __init__(self, faults: Sequence[PipelineFault]) -> None:
        files = ", ".join(dict.fromkeys(fault.file for fault in faults))
        number = "a fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__(f"{number} in {files}", why="\n".join(str(fault) for fault in faults))
        self.faults = tuple(faults)
        if faults:
            self.code = faults[0].code
