"""The bare ledger: three compare-and-set appends a task on nats-py, with no line of the product.

It is the yardstick for the product's overhead: what this machine can do when nobody validates,
signs, traces or recovers anything. A refusal or a status that was not expected ends the run.
"""

from benchmarks.bare.run import measure

__all__ = ["measure"]
