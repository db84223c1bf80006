"""Reads what a tree declares about its tests: dependencies, and what to run. Executes nothing."""

from __future__ import annotations

import hashlib
import platform
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

import msgspec

from switchgear_agents.pytest_runner import backend
from switchgear_agents.pytest_runner.backend import Backend
from switchgear_agents.refusals import Refused

NAMES = ("test", "tests", "testing", "dev")
"""Names of extras and dependency groups that hold what tests need, most specific first."""
_LISTS = (
    "requirements-test.txt",
    "requirements-tests.txt",
    "test-requirements.txt",
    "requirements-dev.txt",
)
_LEGACY = ("setup.py", "setup.cfg", "requirements.txt")
_SCHEME = "2"
"""Changes when environments are built otherwise than before."""


class _Check(msgspec.Struct):
    """`[tool.switchgear.check]` of a pyproject.toml."""

    tests: list[str] | None = None
    """Arguments for pytest; None: pytest's own configuration says what runs."""
    extras: list[str] | None = None
    groups: list[str] | None = None
    constraints: list[str] = []


class _Project(msgspec.Struct):
    name: str = ""
    dependencies: list[str] = []
    extras: dict[str, list[str]] = msgspec.field(
        default_factory=dict[str, list[str]], name="optional-dependencies"
    )


class _Switchgear(msgspec.Struct):
    check: _Check = msgspec.field(default_factory=_Check)


class _Tool(msgspec.Struct):
    switchgear: _Switchgear = msgspec.field(default_factory=_Switchgear)


class _Pyproject(msgspec.Struct):
    project: _Project | None = None
    tool: _Tool = msgspec.field(default_factory=_Tool)
    build: dict[str, object] | None = msgspec.field(default=None, name="build-system")
    groups: dict[str, list[str | dict[str, str]]] = msgspec.field(
        default_factory=dict[str, list[str | dict[str, str]]], name="dependency-groups"
    )


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """What a tree's tests need and which to run."""

    digest: str
    """Of all that decides the environment: trees with equal digests can share one."""
    project: str | None
    """The file that makes the tree an installable project; None: it is none."""
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    """Requirements files, relative to the tree."""
    constraints: tuple[str, ...] = ()
    backend: Backend | None = None
    """What builds the project; None: it is none."""
    arguments: tuple[str, ...] | None = None
    """For pytest; None: its own configuration decides."""

    @property
    def origin(self) -> str:
        """The chosen declarations in words; empty when the tree declares nothing for its tests."""
        kinds = (("extra", self.extras), ("group", self.groups), ("file", self.lists))
        return ", ".join(f"{kind} {name}" for kind, names in kinds for name in names)


def declared(tree: Path) -> Declared:
    """Read the tree's declarations. Raises `Refused` for a pyproject.toml that cannot be read."""
    pyproject = _read(tree)
    project = pyproject.project or _Project()
    check = pyproject.tool.switchgear.check
    extras, groups = _chosen(project, pyproject, check)
    lists = () if extras or groups else tuple(_present(tree, _LISTS)[:1])
    project_file = _project_file(tree, pyproject)
    if project_file is None:
        lists = (*_present(tree, ("requirements.txt",)), *lists)
    for name in check.constraints:
        if not (tree / name).resolve().is_relative_to(tree.resolve()):
            raise Refused(f"the constraints file {name} lies outside the tree")
    files = ("pyproject.toml", *_LEGACY, *_LISTS, *check.constraints)
    return Declared(
        digest=_digest(tree, pyproject, files),
        project=project_file,
        extras=extras,
        groups=groups,
        lists=lists,
        constraints=tuple(check.constraints),
        backend=None if project_file is None else backend.read(pyproject.build),
        arguments=None if check.tests is None else tuple(check.tests),
    )


def _read(tree: Path) -> _Pyproject:
    file = tree / "pyproject.toml"
    if not file.is_file():
        return _Pyproject()
    try:
        return msgspec.convert(tomllib.loads(file.read_text("utf-8")), type=_Pyproject)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise Refused(f"pyproject.toml cannot be used: {error}") from error


def _project_file(tree: Path, pyproject: _Pyproject) -> str | None:
    if pyproject.project is not None:
        return "pyproject.toml"
    if legacy := _present(tree, ("setup.py",)):
        return legacy[0]
    return None if pyproject.build is None else "pyproject.toml"


def _chosen(
    project: _Project, pyproject: _Pyproject, check: _Check
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Extras and groups for the tests: those that the tree names for us, else the best by name."""
    if check.extras is not None or check.groups is not None:
        return tuple(check.extras or ()), tuple(check.groups or ())
    groups = {
        name: [requirement for requirement in listed if isinstance(requirement, str)]
        for name, listed in pyproject.groups.items()
    }
    candidates = [
        (kind, name, listed[name])
        for name in NAMES
        for kind, listed in (("group", groups), ("extra", project.extras))
        if name in listed
    ]
    # An extra "testing" may be for a project's users; the one with pytest is for its own tests.
    complete = [candidate for candidate in candidates if _brings_pytest(candidate[2])]
    best = next(iter(complete or candidates), None)
    if best is None:
        return (), ()
    return ((best[1],), ()) if best[0] == "extra" else ((), (best[1],))


def has_tests(tree: Path, files: Iterable[str], wanted: Declared) -> bool:
    """Whether there seem to be tests: by our table, a pytest configuration, or names of files."""
    if wanted.arguments is not None or (tree / "pytest.ini").is_file():
        return True
    marks = {"pyproject.toml": "[tool.pytest", "setup.cfg": "[tool:pytest]", "tox.ini": "[pytest]"}
    for name, mark in marks.items():
        file = tree / name
        if file.is_file() and mark in file.read_text("utf-8", errors="replace"):
            return True
    return any(re.search(r"(^|/)(test_[^/]*|[^/]*_test)\.py$", name) for name in files)


def _brings_pytest(requirements: Iterable[str]) -> bool:
    return any(re.match(r"pytest\b(?!-)", requirement.strip()) for requirement in requirements)


def _present(tree: Path, names: Iterable[str]) -> list[str]:
    return [name for name in names if (tree / name).is_file()]


def _digest(tree: Path, pyproject: _Pyproject, files: Iterable[str]) -> str:
    """Digest over the declarations; of pyproject.toml only the parts that concern dependencies."""
    parts: list[object] = [_SCHEME, platform.python_version(), platform.machine()]
    parts += [pyproject.project, pyproject.groups, pyproject.build]
    check = pyproject.tool.switchgear.check
    parts += [check.extras, check.groups]
    digest = hashlib.sha256(msgspec.json.encode(parts, order="deterministic"))
    for name in _present(tree, files):
        if name != "pyproject.toml":
            digest.update(name.encode() + b"\0" + (tree / name).read_bytes())
    return digest.hexdigest()
