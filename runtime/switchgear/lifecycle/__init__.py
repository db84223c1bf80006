"""What happens next: pure decisions over a task's history. No clock, no bus, no randomness.

`history` folds ledger entries by the state table; `coordination` decides for coordinators, `holding` for agents.
"""
