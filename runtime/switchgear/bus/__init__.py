"""The only door to nats-py: the ledger, work, registry, timers and blobs over one connection."""
