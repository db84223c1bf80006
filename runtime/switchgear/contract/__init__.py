"""The wire: what crosses the bus, as msgspec structs, subjects and limits. Pure; msgspec is its only import.

Another language needs nothing but `schemas/` (generated from here) and docs/reference/protocol.md.
"""
