"""What the product costs beside a program that does the same appends and nothing else.

`python -m benchmarks` (or `make bench`) measures, prints a table and writes `build/bench.json`.
docs/explanation/performance.md says how to read it.
"""
