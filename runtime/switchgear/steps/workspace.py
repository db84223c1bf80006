"""What one run of a step has around itself: a private directory, artifacts, secrets. Made by the runner, gone after."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from switchgear.contract import limits
from switchgear.errors import StepFailed, UsageError

if TYPE_CHECKING:
    from switchgear.bus.port import Blobs
    from switchgear.contract.artifact import Artifact
    from switchgear.steps.sources import Secret


_PREFIX = "sg-step-"
_YOUNG = 60.0
"""Seconds after which a directory without a lock is nobody's."""
_TELLING = 8
"""Bytes of the shortest secret that is looked for in outputs: a shorter one may stand there by chance."""


class Workspace:
    """`async with`: its directory is removed at the end."""

    def __init__(
        self,
        key: str,
        *,
        blobs: Blobs | None = None,
        environ: Mapping[str, str] | None = None,
        root: Path | None = None,
    ) -> None:
        """`blobs`: where artifacts are; None: the step can have none. `environ`: what `env://` secrets are read from.

        `root`: where private directories are made; None: the system's place for temporary files.
        """
        self.key = key
        self._blobs = blobs
        self._environ = environ or {}
        self._root = root
        self._directory: Path | None = None
        self._lock: int | None = None
        self._secrets: dict[str, str] = {}
        """Names by text: those of a service are others than the step's of that name."""
        self.in_doubt = False
        """Whether commands of the step may have taken effect that no exit code tells of: set by its executor."""
        self.notes: list[str] = []
        """What a reader of the result should know of what was kept."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        # Most steps leave nothing in it: cheaper than to wake a thread.
        if self._directory is not None and not _removed(self._directory):
            await asyncio.to_thread(_force, self._directory)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def directory(self) -> Path:
        """A directory that only this run knows; made when it is first asked for."""
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._root))
            # Ends with this process at the latest: that tells what a dead one left.
            self._lock = os.open(self._directory, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return self._directory

    def secret(self, secret: Secret) -> str:
        """The secret's text. Raises StepFailed (invalid) where there is none."""
        text = self._text(secret)
        self._secrets[text] = secret.name
        return text

    @property
    def texts(self) -> Collection[str]:
        """Of the secrets that were asked for so far."""
        return self._secrets.keys()

    def _text(self, secret: Secret) -> str:
        kind, _, place = secret.ref.partition("://")
        try:
            if kind == "env":
                return self._environ[place]
            return Path(place).read_text("utf-8").rstrip("\n")
        except (KeyError, OSError, UnicodeDecodeError) as error:
            raise StepFailed(
                f"step {self.key} has no secret {secret.name}",
                key=self.key,
                error_class="invalid",
                why=f"{secret.ref} cannot be read: {type(error).__name__}",
                fix="set it where the agent runs",
            ) from None

    async def load(self, artifact: Artifact) -> bytes:
        """The artifact's bytes, verified. Raises NotFound, ProtocolError SG1109, UsageError without a mesh."""
        return await self._store().get(artifact.digest)

    async def keep(self, name: str, path: Path) -> Artifact:
        """Store a file or directory of the step as an artifact, as it is. Raises StepFailed, Unavailable.

        One that holds the text of a secret is noted: data is not masked, it would be damaged.
        """
        from switchgear.steps import packing

        try:
            packed = await asyncio.to_thread(packing.pack, path, name)
        except packing.Unpackable as error:
            raise StepFailed(
                f"output {name} of step {self.key} cannot be kept",
                key=self.key,
                error_class="invalid",
                why=str(error),
                fix=f"write what is to be kept to the output's path, at most {limits.MAX_BLOB} bytes",
            ) from error
        for secret in await asyncio.to_thread(_held, packed.data, self._secrets):
            self.notes.append(f"the output {name} holds the text of the secret {secret}")
        await self._store().put(packed.data)
        return packed.artifact

    def missing(self, name: str, path: str) -> StepFailed:
        """The error of a step that did not write this output."""
        return StepFailed(
            f"step {self.key} left no output {name}",
            key=self.key,
            why=f"there is neither a file nor a directory at {path}",
            fix="write it, or change .output()",
        )

    def _store(self) -> Blobs:
        if self._blobs is None:
            raise UsageError("a step outside of a mesh has no artifacts")
        return self._blobs


def forget_dead(root: Path | None = None) -> None:
    """Remove the directories of runs whose agent died."""
    for path in Path(root or tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            state = path.lstat()
            # A younger one may be about to be locked.
            if state.st_uid != os.getuid() or time.time() - state.st_mtime < _YOUNG:  # noqa: TID251 - times of files
                continue
            lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _force(path)
            finally:
                os.close(lock)


def _held(data: bytes, secrets: Mapping[str, str]) -> list[str]:
    """Names of secrets whose whole text stands in the data: an archive of a directory holds its files as they are."""
    texts = {text.encode(errors="surrogateescape"): name for text, name in secrets.items()}
    return [name for text, name in texts.items() if len(text) >= _TELLING and text in data]


def _removed(directory: Path) -> bool:
    """Remove it, if there is nothing but empty directories in it."""
    try:
        for entry in directory.iterdir():
            entry.rmdir()
        directory.rmdir()
    except OSError:
        return False
    return True


def _force(directory: Path) -> None:
    """Remove what a step may have written-protected against its owner."""
    for root, names, _ in os.walk(directory):
        for name in names:
            path = Path(root) / name
            if not path.is_symlink():
                with suppress(OSError):
                    path.chmod(0o700)
    shutil.rmtree(directory, ignore_errors=True)
