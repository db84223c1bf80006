"""What a step finds mounted: sources, caches, services; plain values of a spec."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

from msgspec import Struct

from switchgear.contract.artifact import Artifact
from switchgear.errors import UsageError

Sharing = Literal["shared", "private", "locked"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Names of caches and outputs."""
_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/@+-]*")
"""Stricter than git: no options, no refspecs, no expressions."""
_URL = re.compile(r"(https|ssh|file)://(?!-)\S+|(?!-)[A-Za-z0-9._-]+@(?!-)[A-Za-z0-9.-]+:(?!-)\S+")
_CREDENTIAL = re.compile(r"[a-z]+://[^/@]*:[^/@]*@|https://[^/@]+@")


class Local(Struct, frozen=True, tag="local"):
    """A file or directory on the host of the agent (or of the session that serves an engine)."""

    path: str
    """Absolute."""


class Git(Struct, frozen=True, tag="git"):
    """The files of one commit, without its history."""

    url: str
    ref: str
    """Branch, tag or full commit. A commit always names the same files, the others what they name at that time."""


Source: TypeAlias = Local | Git | Artifact


class Mount(Struct, frozen=True, omit_defaults=True):
    """A source at a path inside."""

    path: str
    """Absolute path inside."""
    source: Source
    read_only: bool = True
    """False: the step may write. Into the source itself for a local one run by the process executor; elsewhere
    into a copy that is thrown away."""


class Cache(Struct, frozen=True, omit_defaults=True):
    """A directory that outlives the step, for what can be made again: it may be empty at any time."""

    path: str
    """Absolute path inside."""
    name: str
    """Steps that name the same cache share it."""
    sharing: Sharing = "shared"
    """`shared`: at the same time; `locked`: one step after the other; `private`: an empty one for each step, where
    somebody else has it."""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(
            self.name
        ):  # it becomes a directory's: also of a spec that came from outside
            raise ValueError(f"{self.name!r} cannot name a cache")


class Secret(Struct, frozen=True):
    """A secret by reference: no spec, repr, ledger or log ever holds its text."""

    name: str
    """The environment variable in which the step finds it."""
    ref: str
    """`env://NAME` of the agent's environment, or `file:///path` on its host."""


def git(url: str, ref: str) -> Git:
    """The files of a commit as a source. Raises UsageError for a URL with a credential in it, or an odd ref."""
    if not _URL.fullmatch(url):
        raise UsageError(
            f"{url!r} is no URL to fetch from",
            fix="use https://, ssh://, file:// or user@host:path",
        )
    if _CREDENTIAL.match(url):
        raise UsageError(
            "a git URL holds a credential",
            why="it would stand in the ledger",
            fix="give it to git's credential helper on the agent's host",
        )
    if not _REF.fullmatch(ref) or ".." in ref:
        raise UsageError(f"{ref!r} is no branch, tag or commit")
    return Git(url, ref)
