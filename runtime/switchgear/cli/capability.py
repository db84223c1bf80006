"""`switchgear capability`: ls, show."""

from __future__ import annotations

from typing import Any

from switchgear.cli import common as shared
from switchgear.cli.common import COMMON, Common


def ls(*, common: Common = COMMON) -> int:
    """List what the mesh offers."""
    return shared.run(_ls(common))


def show(name: str, /, *, common: Common = COMMON) -> int:
    """Show one capability.

    Args:
        name: Of the capability.
        common: Shared by all commands.
    """
    return shared.run(_show(name, common))


async def _rows(common: Common) -> Any:
    async with shared.joined(common) as mesh:
        with shared.answered_by(*shared.COORDINATOR):
            return (await mesh.capabilities()).rows


async def _ls(common: Common) -> int:

    rows = sorted(await _rows(common), key=lambda row: (row.offer.name, row.offer.version))

    def draw() -> Any:
        from switchgear.cli.render import mesh

        return mesh.capabilities(rows)

    common.output.put("capability-list", {"capabilities": rows}, draw)
    return 0


async def _show(name: str, common: Common) -> int:

    from switchgear.cli import suggest

    rows = await _rows(common)
    found = [row for row in rows if row.offer.name == name]
    if not found:
        fix = "`switchgear capability ls` lists what is offered now"
        raise suggest.unknown("capability", name, (row.offer.name for row in rows), fix=fix)
    found.sort(
        key=lambda row: [int(part) for part in row.offer.version.split(".") if part.isdigit()]
    )
    found.reverse()

    def draw() -> Any:
        from switchgear.cli.render import mesh

        return mesh.capability(found)

    document = {"name": name, "pools": found}
    common.output.put("capability", document, draw)
    return 0
