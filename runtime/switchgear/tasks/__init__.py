"""Submitting tasks and following them to their end, on a bus: what client and agents (for children) share."""
