"""Stable codes that no exception class names: of unreadable bytes, refused submissions, failed attempts."""

from __future__ import annotations

PROTOCOL_CODES: dict[str, str] = {
    "SG1101": "a protocol version that this release does not know",
    "SG1102": "a field is missing, of the wrong type, or outside its limits",
    "SG1103": "larger than the limit of its kind",
    "SG1104": "not UTF-8",
    "SG1105": "not JSON",
    "SG1106": "nested too deeply",
    "SG1107": "a subject that is not of this protocol, or a token with characters outside [A-Za-z0-9_-]",
    "SG1108": "the body does not belong to its subject",
    "SG1109": "a blob whose content does not have the digest that names it",
}
"""What a `ProtocolError` of each code means."""

REJECTIONS: dict[str, tuple[str, str]] = {
    "SG1201": ("unknown priority", "use high, normal or low"),
    "SG1202": ("the deadline has passed", "submit with a later deadline, or none"),
    "SG1203": (
        "the input violates the capability's schema",
        "`switchgear capability show NAME` prints the schema",
    ),
    "SG1204": (
        "no agent offers the capability",
        "start an agent that offers it, or submit without require_agent to wait for one",
    ),
    "SG1205": ("the submission cannot be read", "compare it with schemas/submitted.json"),
    "SG1206": ("the version range cannot be read", "write it like >=1.2,<2 or 1.2 or *"),
    "SG1207": (
        "the input's blob is missing or damaged",
        "store the payload in SG_BLOBS under its SHA-256 before submitting",
    ),
    "SG1208": ("the task is nested too deeply", "flatten the calls: 8 levels are allowed"),
    "SG1210": (
        "the capability's backlog of this owner is full",
        "submit again later, or start more instances",
    ),
    "SG1211": ("the owner submits faster than allowed", "submit again after `retry_after` seconds"),
    "SG1212": (
        "the ledger is nearly full: what room is left belongs to the running tasks",
        "shorten retention or raise the ledger's limit, then submit again",
    ),
    "SG1213": ("its parent has ended", "submit it detached, or wait for it in its parent"),
    "SG1209": (
        "the retry policy cannot be used",
        "max_attempts is 1 to 100, delays are not negative",
    ),
}
"""Admission refusals: code -> (meaning, fix). They end a task as `rejected`."""

PIPELINE_CODES: dict[str, str] = {
    "SG1530": "the file cannot be read, or is neither TOML nor YAML",
    "SG1531": "a key or a value that means nothing here, or a name that stands twice",
    "SG1532": "steps that do not hang together: an unknown step or artifact, or a cycle",
    "SG1533": "an expression that cannot be read, or names what is not there",
    "SG1534": "more steps, combinations or values than allowed",
}
"""What a fault of a pipeline file (`PipelineInvalid`) of each code means."""

OVERLOADS: frozenset[str] = frozenset({"SG1210", "SG1211", "SG1212"})
"""Refusals that pass: callers meet them as Overloaded."""

FAILURES: dict[str, tuple[str, str]] = {
    "SG1510": ("the handler raised an exception", "read the message and the agent's log"),
    "SG1511": ("the attempt ran longer than the capability's timeout", "raise `timeout=`"),
    "SG1512": (
        "the task crashed its agents more often than `max_crashes` allows",
        "read the agents' logs for the crash, then submit again",
    ),
    "SG1513": (
        "the output does not fit the capability's type",
        "return a value of the annotated type",
    ),
    "SG1514": ("all attempts failed", "`switchgear task show ID` lists them"),
    "SG1516": (
        "the handler showed no progress for longer than `stall_timeout`",
        "report progress, or raise `stall_timeout=`",
    ),
    "SG1517": ("a task has more children than allowed", "split the work over several tasks"),
    "SG1518": ("an undo failed", "undo by hand what the message names"),
    "SG1515": ("the deadline passed before the attempt began", "submit with a later deadline"),
}
"""Failures of an attempt that no exception class names: code -> (meaning, fix)."""
