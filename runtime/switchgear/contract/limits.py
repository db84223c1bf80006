"""Sizes and counts that every reader and writer of the protocol keeps to."""

from __future__ import annotations

from datetime import timedelta

KIB = 1024

MAX_INLINE = 256 * KIB
"""Bytes of an input, output or signal inside an entry; above it travels as a blob, named by digest."""
MAX_ENTRY = 512 * KIB
"""Bytes of one ledger entry's body; below nats-server's `max_payload` of 1 MiB with room for headers."""
MAX_ANNOUNCEMENT = 512 * KIB
"""Bytes of an instance's announcement, schemas included."""
MAX_BLOB = 1024 * KIB * KIB
"""Bytes of one blob in the object store."""
MAX_NAMED = 2000
"""Artifacts that a payload in the object store may name."""
MAX_QUERY = 64 * KIB
"""Bytes of a query to a coordinator or the read model."""
MAX_PROGRESS = 8 * KIB
"""Bytes of one progress report."""
MAX_TEXT = 16 * KIB
"""Characters of an error message or reason; longer ones are cut, with a mark."""
MAX_LABELS = 32
"""Labels of a submission or an agent."""
MAX_LABEL = 128
"""Characters of a label's value."""
MAX_CANDIDATES = 16
"""Pools named in a routing decision, the chosen one included."""
MAX_DEPTH = 8
"""Levels of calls below a root task."""
MAX_CHILDREN = 10_000
"""Children of one task."""
MAX_CHUNK = 16 * KIB
"""Bytes of one streamed chunk."""
MAX_MESSAGE = 256 * KIB
"""Bytes of one topic message or direct request."""
MAX_LINES = 20
"""Log lines in one progress report."""
MAX_ATTEMPTS = 100
"""The highest `max_attempts` of a retry policy."""
MAX_FACTOR = 100
"""The highest growth of a retry policy's delay."""

LANE_ACK_WAIT = timedelta(seconds=30)
"""The lease: a holder that does not extend its delivery for this long loses it (rule 7)."""
INTAKE_ACK_WAIT = timedelta(seconds=1)
"""How long a coordinator's intake waits for a message that a dead replica held."""
ANNOUNCE_EVERY = timedelta(seconds=10)
ANNOUNCE_TTL = timedelta(seconds=30)
CLOCK_TOLERANCE = timedelta(seconds=1)
"""How far a fresh delivery's store time may be from the agent's clock (rule 6, Receive)."""
CAPACITY_RECHECK = timedelta(seconds=60)
"""First re-check of a task that waits for capacity; doubling up to `CAPACITY_RECHECK_MAX` (rule 13)."""
CAPACITY_RECHECK_MAX = timedelta(hours=1)
HOLD_TIME = timedelta(seconds=10)
"""How long a handler that only waits keeps its slot; beyond it the task is suspended (rule 13)."""
DISCONNECT_GRACE = timedelta(seconds=0.2)
"""How long an instance may stay away before what it ran is handed on (rule 7)."""
MAX_RETRY_AFTER = timedelta(hours=1)
"""The longest delay that a failed side may ask for."""
CLEANUP = timedelta(seconds=5)
"""Default time that a cancelled handler has before a coordinator ends its task."""
MAX_CRASHES = 2
"""Crash take-overs of one attempt that are survived; one more ends the attempt (rule 9)."""
