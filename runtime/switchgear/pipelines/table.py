"""Reads the fields of one table of a document; what is wrong becomes a fault, and the default stands. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, cast

from switchgear.pipelines.document import Faults, Path

STRUCTURE = "SG1531"

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")
_SIZE = re.compile(r"(\d{1,18})\s*(B|KiB|MiB|GiB)?")
_UNITS = {None: 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
LARGEST = 2**62
SHORTEST, LONGEST = timedelta(milliseconds=1), timedelta(days=365)


def said(value: Any) -> str:
    """What a value is, for people."""
    if value is None:
        return "empty"
    for kinds, word in ((bool, "true or false"), (str, "a text"), (int, "a whole number")):
        if isinstance(value, kinds):
            return word
    if isinstance(value, float):
        return "a number"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return "a table" if isinstance(value, dict) else "a date"


def hint(name: str, known: Iterable[str]) -> str:
    """The known name that this one may be meant for, else all of them."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    return f"known are {', '.join(names)}" if names else ""


class Table:
    """One table and its fields."""

    def __init__(self, faults: Faults, path: Path, value: dict[str, Any]) -> None:
        self.faults = faults
        self.path = path
        self._value = value

    def __contains__(self, name: str) -> bool:
        return name in self._value

    def names(self) -> list[str]:
        """Keys, as they are written."""
        return list(self._value)

    def raw(self, name: str) -> Any:
        """The value as it is."""
        return self._value.get(name)

    def at(self, name: str | int) -> Path:
        """The path of a field."""
        return (*self.path, name)

    def allow(self, kind: str, known: Iterable[str]) -> None:
        """Tell the keys that mean nothing here."""
        known = list(known)
        for name in self._value:
            if name not in known:
                self.faults.key(
                    self.at(name), STRUCTURE, f"{kind} has no {name!r}", fix=hint(name, known)
                )

    def wrong(self, path: Path, wanted: str, value: Any, fix: str = "") -> None:
        """Tell a value of another kind."""
        keys = [part for part in path if isinstance(part, str)]
        name = ".".join(keys[-2:]) + "".join(f"[{part}]" for part in path if isinstance(part, int))
        self.faults.value(path, STRUCTURE, f"{name} is {wanted}, not {said(value)}", fix=fix)

    def text(self, name: str, default: str = "") -> str:
        """A text."""
        value = self.raw(name)
        if value is None:
            return default
        if isinstance(value, str):
            return value
        self.wrong(self.at(name), "a text", value, 'put it in quotes: "…"')
        return default

    def flag(self, name: str, *, default: bool = False) -> bool:
        """True or false."""
        value = self.raw(name)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        self.wrong(self.at(name), "true or false", value)
        return default

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number within bounds."""
        value = self.raw(name)
        if value is None:
            return default
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        wanted = f"a whole number from {low} to {high}"
        if isinstance(value, int) and not isinstance(value, bool):
            self.faults.value(self.at(name), STRUCTURE, f"{name} is {wanted}, not {value}")
        else:
            self.wrong(self.at(name), wanted, value)
        return default

    def number(self, name: str) -> float | None:
        """A number, if there is one."""
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool):
            self.wrong(self.at(name), "a number", value)
        elif abs(value) < LARGEST:
            return value
        else:
            self.faults.value(self.at(name), STRUCTURE, f"{name} is beyond all bounds")
        return None

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts; one text stands for a list of one."""
        value = self.raw(name)
        if isinstance(value, str):
            return (value,)
        return tuple(text for text, _ in self.elements(name))

    def elements(self, name: str) -> list[tuple[str, Path]]:
        """The texts of a list, each with its path."""
        value = self.raw(name)
        if value is None:
            return []
        if isinstance(value, str):
            return [(value, self.at(name))]
        if not isinstance(value, list):
            self.wrong(self.at(name), "a list of texts", value)
            return []
        found: list[tuple[str, Path]] = []
        for index, one in enumerate(cast("list[Any]", value)):
            path = (*self.at(name), index)
            if isinstance(one, str):
                found.append((one, path))
            else:
                self.wrong(path, "a text", one, 'put it in quotes: "…"')
        return found

    def mapping(self, name: str) -> dict[str, str]:
        """Texts by name."""
        table = self.table(name)
        if table is None:
            return {}
        return {key: table.text(key) for key in table.names()}

    def table(self, name: str) -> Table | None:
        """A table, if there is one."""
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, dict):
            return Table(self.faults, self.at(name), cast("dict[str, Any]", value))
        self.wrong(self.at(name), "a table", value)
        return None

    def tables(self, name: str) -> list[Table]:
        """The tables of a table, or of a list."""
        value = self.raw(name)
        if isinstance(value, list):
            items = list(enumerate(cast("list[Any]", value)))
        else:
            table = self.table(name)
            items = [] if table is None else list(table._value.items())  # noqa: SLF001 - its own class
        found: list[Table] = []
        for key, one in items:
            path = (*self.at(name), key)
            if isinstance(one, dict):
                found.append(Table(self.faults, path, cast("dict[str, Any]", one)))
            else:
                self.wrong(path, "a table", one)
        return found

    def duration(self, name: str, default: timedelta | None = None) -> timedelta | None:
        """A time such as `90s` or `1h30m`."""
        value = self.raw(name)
        if value is None:
            return default
        match = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if match is not None and any(match.groups()):
            days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
            total = days * 86400 + hours * 3600 + minutes * 60 + seconds
            if SHORTEST.total_seconds() <= total <= LONGEST.total_seconds():
                return timedelta(seconds=total)
        self._unread(name, "time", value, "write it like 45s, 10m, 1h30m or 2d")
        return default

    def size(self, name: str) -> int | None:
        """A number of bytes such as `512MiB`."""
        value = self.raw(name)
        if value is None:
            return None
        match = _SIZE.fullmatch(str(value)) if not isinstance(value, bool) else None
        size = int(match[1]) * _UNITS[match[2]] if match is not None else 0
        if 0 < size < LARGEST:
            return size
        self._unread(name, "size", value, "write it like 512MiB or 2GiB")
        return None

    def _unread(self, name: str, kind: str, value: Any, fix: str) -> None:
        shown = f"{value[:40]!r}" if isinstance(value, str) else said(value)
        self.faults.value(self.at(name), STRUCTURE, f"{name}: {shown} is no {kind}", fix=fix)
