"""Projections: readers of the ledger, each with a cursor of its own.

The ledger stays the only truth: what is here can be rebuilt from it at any time, may lag behind it,
and says by how much (rule 20).
"""
