"""Where this host has what programs need: tools, the user's caches, and what git reads of a tree."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from switchgear_agents.refusals import Refused

GIT_HOME = (".gitconfig", ".git-credentials", ".netrc", ".ssh", ".config/git")
"""Files of the user's home by which git reaches hosts."""
OWN_BIN = "AGENT_BIN"
"""Variable that tells a program where the tools of its agent are."""
SYSTEM = ("/usr/", "/opt/", "/etc/", "/nix/store/")
"""What every process step is shown of the host."""
IMAGE_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def own_bin() -> str:
    """Where the agent's interpreter and its tools are."""
    return os.environ.get(OWN_BIN) or str(Path(sys.executable).parent)


def interpreter() -> str:
    """This Python by a name that an image of the same version knows too; its path where it has no such name."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return name if os.access(Path(own_bin()) / name, os.X_OK) else sys.executable


def search_path() -> str:
    """PATH for a program, on this host and in an image: the agent's own tools come first."""
    parts = [own_bin(), *os.environ.get("PATH", os.defpath).split(os.pathsep), *IMAGE_PATH]
    return os.pathsep.join(dict.fromkeys(part for part in parts if part))


def tool(name: str) -> str:
    """Full path of a program: the agent's environment first, then PATH. Raises `Refused`."""
    own = Path(own_bin()) / name
    found = str(own) if os.access(own, os.X_OK) else shutil.which(name)
    if found is None:
        raise Refused(f"the program {name} is missing: pip install 'switchgear[agents]'")
    return found


def tool_files(names: Iterable[str]) -> list[str]:
    """What a step must be shown to run these and git: the programs, and what they are links to."""
    found = [tool(name) for name in names]
    git = shutil.which("git") or ""
    if git and not git.startswith(SYSTEM):  # an image has its own at the usual place
        found.append(git)
    return existing([*found, *(os.path.realpath(path) for path in found)])


def existing(paths: Iterable[str]) -> list[str]:
    """Those that exist, parents before what is in them."""
    absolute = {str(Path(path).absolute()) for path in paths if path and Path(path).exists()}
    return sorted(absolute - {"/"})


def git_reads(path: str) -> tuple[str, ...]:
    """What git reads of a tree: the repository around the path, and where its objects are."""
    here = Path(path)
    return (str(_top(here)), *git_dirs(path))


def git_dirs(path: str) -> tuple[str, ...]:
    """The same without the files of the tree: git directory, common directory, alternates."""
    top = _top(Path(path))
    marker = top / ".git"
    if not marker.exists():
        return (str(top), *_alternates(top))
    found = [marker]
    try:
        if marker.is_file():
            own = (top / marker.read_text("utf-8").partition("gitdir: ")[2].strip()).resolve()
            found.append(own)
            common = own / "commondir"
            if common.is_file():
                marker = (own / common.read_text("utf-8").strip()).resolve()
                found.append(marker)
    except (OSError, UnicodeDecodeError):
        pass  # git says what it lacks
    return (*map(str, found), *_alternates(marker))


def _top(here: Path) -> Path:
    """The tree around the path. A repository without one is its own, whatever it lies in: such as a home under git."""
    around = (one for one in (here, *here.parents) if (one / ".git").exists() or _is_bare(one))
    return next(around, here)


def _is_bare(path: Path) -> bool:
    return (path / "HEAD").is_file() and (path / "objects").is_dir() and (path / "refs").is_dir()


def _alternates(git_dir: Path) -> list[str]:
    """Object directories of others that this repository borrows from."""
    file = git_dir / "objects" / "info" / "alternates"
    try:
        lines = file.read_text("utf-8").splitlines() if file.is_file() else []
        return [str((file.parent.parent / line).resolve()) for line in lines if line]
    except (OSError, UnicodeDecodeError):
        return []


def cache_home() -> Path:
    """The user's cache directory."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def config_home() -> Path:
    """The user's configuration directory."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")


def uv_cache() -> Path:
    """Where uv keeps packages; made when missing."""
    directory = Path(os.environ.get("UV_CACHE_DIR") or cache_home() / "uv").absolute()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def cache_directory(kind: str) -> Path:
    """Where things of that kind are kept between runs; private to the user, made when missing."""
    directory = (cache_home() / "switchgear" / kind).absolute()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory
