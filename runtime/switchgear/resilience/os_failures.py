"""What the operating system's errors mean, by errno. Pure."""

from __future__ import annotations

import errno

from switchgear.resilience.classes import Verdict

_DISK = Verdict("resource", dependency="disk", fix="free space on the disk, or raise the quota")
_READ_ONLY = Verdict("resource", dependency="disk", fix="the file system is read-only: remount it")
_FILES = Verdict("resource", dependency="files", fix="raise the limit of open files (`ulimit -n`)")
_MEMORY = Verdict("resource", dependency="memory", fix="give the host more memory")
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
    errno.EIO: Verdict("resource", dependency="disk", fix="look at the host's kernel log"),
    errno.EROFS: _READ_ONLY,
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.ENOMEM: _MEMORY,
    errno.EAGAIN: Verdict("resource", fix="it may have been the limit of processes: `ulimit -u`"),
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
