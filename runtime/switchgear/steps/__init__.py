"""Steps: what a handler runs, as data, and the code that runs it. Light to import.

`spec` says what to run, `result` what came of it, `runner` runs it; each way of running is an
executor of its own (`executors/process.py` today). Above: agent/context. Below: errors.
"""
