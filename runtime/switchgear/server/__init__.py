"""A nats-server of our own: found, started from the reference configuration, stopped in time.

Above: `cli` (`switchgear dev`), `testing` and the test suite. Below: only `errors`. Nothing here
speaks the NATS protocol or imports its client: the embedded server is a child process with an
address.
"""

from switchgear.server.binary import find_binary
from switchgear.server.embedded import Durability, EmbeddedServer

__all__ = ["Durability", "EmbeddedServer", "find_binary"]
