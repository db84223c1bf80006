"""Admits, routes, retries, times out and ends tasks. Stateless: any number of replicas share the work."""
