"""What users need to test agents: a mesh in memory, in virtual time, with fakes for what is not there.

    async with testing.mesh(agent) as mesh:
        mesh.fake("web-search", returns={"urls": []})
        assert await mesh.call(research, Question("why?")) == Answer("because")

`mesh` builds on `site` (the processes), `fakes`, `virtual_time` and `memory` (the broker).
"""

from __future__ import annotations

from switchgear.errors import ExtraMissing

try:
    from switchgear.testing.mesh import MemoryMesh, mesh
except ModuleNotFoundError as error:
    if error.name in {"jsonschema_rs", "packaging"}:
        raise ExtraMissing("switchgear.testing", "testing") from error
    raise

__all__ = ["MemoryMesh", "mesh"]
