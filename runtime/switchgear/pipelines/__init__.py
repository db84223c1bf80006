"""Pipelines: a step graph declared in a TOML or YAML file, read, checked, planned and drawn.

Above: `agent.pipelines` runs them, `cli.pipeline` shows them. Below: the step spec and the policies. A file
becomes a `Document` (values and their places), that a `Pipeline`, and for one set of parameters a `Plan`.
"""
