"""What users need to test agents: a mesh in memory, in virtual time, with fakes for what is not there.

    async with testing.mesh(agent) as mesh:
        mesh.fake("web-search", returns={"urls": []})
        assert await mesh.call(research, Question("why?")) == Answer("because")

`crash_everywhere` runs a task again and again, killed at another place each time. `mesh` builds on `site` (the
processes), `fakes`, `faults`, `virtual_time` and `memory` (the broker).
"""

from __future__ import annotations

from switchgear.errors import ExtraMissing

try:
    from switchgear.testing.everywhere import crash_everywhere
    from switchgear.testing.mesh import MemoryMesh, mesh
except ModuleNotFoundError as error:
    if error.name in {"jsonschema_rs", "packaging"}:
        raise ExtraMissing("switchgear.testing", "testing") from error
    raise

__all__ = ["MemoryMesh", "crash_everywhere", "mesh"]
