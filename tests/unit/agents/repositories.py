"""A git repository that a test fills."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


class Repository:
    """A work tree at `path`; `commit` writes files and commits all that changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def __str__(self) -> str:
        return str(self.path)

    def write(self, **files: str) -> None:
        """Write files by name; `__` stands for a slash and `_dot_` for a dot."""
        for name, text in files.items():
            self.put(name.replace("__", "/").replace("_dot_", "."), text)

    def put(self, name: str, text: str) -> Path:
        """Write one file."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
        return file

    def commit(self, **files: str) -> str:
        """Write files and commit everything; returns the commit's id."""
        self.write(**files)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message=change")
        return self.git("rev-parse", "HEAD").strip()

    def git(self, *args: str) -> str:
        """Run git here, without the user's configuration."""
        return subprocess.run(
            ["git", "-c", "user.name=Test", "-c", "user.email=test@example.org", *args],
            cwd=self.path,
            env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=True,
        ).stdout
