"""The capability that is measured: it gives back its input of 200 bytes."""

import msgspec

from switchgear import Capability


class Text(msgspec.Struct):
    """Input and output."""

    text: str


ECHO: Capability[Text, Text] = Capability("echo", Text, Text)
REQUEST = Text("x" * (200 - len('{"text":""}')))
"""200 bytes as JSON."""
STEPPED: Capability[Text, Text] = Capability("stepped", Text, Text)
"""The same, with recorded steps."""
STEPS = 5
OWNER = "bench"
