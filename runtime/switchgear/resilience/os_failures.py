"""What the operating system's errors mean, by errno, and of what the host ran out. Pure."""

from __future__ import annotations

import errno

from switchgear.resilience.classes import DISK, FILES, MEMORY, PROCESSES, RESOURCE, Verdict

_DISK = Verdict("resource", dependency=DISK, fix="free space on the disk, or raise the quota")
_READ_ONLY = Verdict("resource", dependency=DISK, fix="the file system is read-only: remount it")
_FILES = Verdict("resource", dependency=FILES, fix="raise the limit of open files (`ulimit -n`)")
_MEMORY = Verdict("resource", dependency=MEMORY, fix="give the host more memory")
_PROCESSES = Verdict(
    "resource",
    dependency=PROCESSES,
    fix="it may have been the limit of processes and threads: `ulimit -u`, or the container's",
)
_DENIED = Verdict("auth", retryable=False, fix="give the agent's user the right to do this")
_DOWN = Verdict("transient")
_CUT = Verdict("transient", outcome_known=False)
_LATE = Verdict("timeout", outcome_known=False)
_NAMES = Verdict("transient", dependency="dns")
_CERTIFICATE = Verdict(
    "auth", retryable=False, fix="trust the server's certificate authority, or mend its certificate"
)

_BY_ERRNO: dict[int, Verdict] = {
    errno.ENOSPC: _DISK,
    errno.EDQUOT: _DISK,
    errno.EIO: Verdict("resource", dependency=DISK, fix="look at the host's kernel log"),
    errno.EROFS: _READ_ONLY,
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    -1: _FILES,  # what uvloop makes of a socketpair that was refused
    errno.ENOMEM: _MEMORY,
    errno.EAGAIN: _PROCESSES,
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.ECONNREFUSED: _DOWN,
    errno.ENETUNREACH: _DOWN,
    errno.EHOSTUNREACH: _DOWN,
    errno.ENETDOWN: _DOWN,
    errno.EHOSTDOWN: _DOWN,
    errno.ECONNRESET: _CUT,
    errno.ECONNABORTED: _CUT,
    errno.EPIPE: _CUT,
    errno.ETIMEDOUT: _LATE,
}
_BY_TYPE: dict[str, Verdict] = {
    "ConnectionResetError": _CUT,
    "ConnectionAbortedError": _CUT,
    "BrokenPipeError": _CUT,
    "PermissionError": _DENIED,
    "gaierror": _NAMES,
    "SSLCertVerificationError": _CERTIFICATE,
}


def os_verdict(error: OSError) -> Verdict | None:
    """What this error means; None where its number says nothing of interest."""
    named = _BY_TYPE.get(type(error).__name__)
    if named is not None:
        return named
    return None if error.errno is None else _BY_ERRNO.get(error.errno)


def shortage(error: BaseException) -> Verdict | None:
    """What the host of this process ran out of, if that is what the exception says."""
    if isinstance(error, MemoryError):
        return _MEMORY
    if isinstance(error, RuntimeError):
        return _PROCESSES if str(error) == _NO_THREAD else None
    found = os_verdict(error) if isinstance(error, OSError) else None
    return found if found is not None and found.dependency.startswith(RESOURCE) else None


def shortage_told(text: str) -> Verdict | None:
    """The same by what a program of this host says; what it repeats of a server is the server's."""
    for line in text.lower().splitlines():
        if line.startswith("remote:"):
            continue
        for sign, found in _SIGNS:
            if sign in line:
                return found
    return None


_NO_THREAD = "can't start new thread"
_SIGNS = (
    ("no space left on device", _DISK),
    ("disk quota exceeded", _DISK),
    ("read-only file system", _READ_ONLY),
    ("too many open files", _FILES),
    ("cannot allocate memory", _MEMORY),
    ("resource temporarily unavailable", _PROCESSES),
)
"""What the C library says of those errors, in lower case."""
