"""`switchgear context`: save, use, ls."""

from __future__ import annotations

from typing import Any

from switchgear.cli.common import COMMON, Common


def save(name: str, /, *, principal: str | None = None, common: Common = COMMON) -> int:
    """Save settings under a name.

    Args:
        name: One word of letters, digits, - and _.
        principal: Who acts: the owner of what is submitted. Default: the one in force now.
        common: Shared by all commands; --url is what is saved, by default the one in force now.
    """
    import msgspec

    from switchgear import settings
    from switchgear.cli.common import locate
    from switchgear.contract import subjects
    from switchgear.errors import UsageError

    found = locate(common).settings
    if principal is not None and not subjects.is_token(principal):
        raise UsageError(
            f"{principal!r} cannot be a principal", fix="use 1 to 64 letters, digits, - and _"
        )
    saved = msgspec.structs.replace(found, principal=principal or found.principal, context="")
    path = settings.save(name, saved)
    common.output.put(
        "context",
        {"name": name, "url": saved.url, "principal": saved.principal, "path": str(path)},
        lambda: f"saved {name}: {saved.url} as {saved.principal}",
    )
    if not common.json:
        common.output.say(f"  use it: switchgear context use {name}")
    return 0


def use(name: str | None = None, /, *, none: bool = False, common: Common = COMMON) -> int:
    """Use a saved context from now on.

    Args:
        name: Of the context.
        none: Use no context any more.
        common: Shared by all commands.
    """
    from switchgear import settings
    from switchgear.cli import suggest
    from switchgear.errors import NotFound, UsageError

    if (name is None) != none:
        raise UsageError("name a context, or give --none", fix="`switchgear context ls` lists them")
    if name is None:
        (settings.directory() / "context").unlink(missing_ok=True)
        common.output.put("context", {"name": None}, lambda: "no context is used any more")
        return 0
    try:
        settings.select(name)
    except NotFound:
        fix = "`switchgear context ls` lists the saved ones"
        raise suggest.unknown("context", name, settings.names(), fix=fix) from None
    found = settings.read(name)
    common.output.put(
        "context",
        {"name": name, "url": found.url, "principal": found.principal},
        lambda: f"using {name}: {found.url} as {found.principal}",
    )
    return 0


def ls(*, common: Common = COMMON) -> int:
    """List the saved contexts."""
    from switchgear import settings

    used = settings.selected()
    found = {name: settings.read(name) for name in settings.names()}

    def draw() -> Any:
        from switchgear.cli.render.tables import table

        if not found:
            return "no contexts: save one with `switchgear context save NAME --url URL`"
        rows = [
            ("*" if name == used else "", name, one.url, one.principal)
            for name, one in found.items()
        ]
        return table(("", "CONTEXT", "URL", "PRINCIPAL"), rows)

    documents = [
        {"name": name, "url": one.url, "principal": one.principal, "used": name == used}
        for name, one in found.items()
    ]
    common.output.put("context-list", {"contexts": documents}, draw)
    return 0
