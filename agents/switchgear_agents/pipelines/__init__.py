"""The service `pipelines`: every template of this folder is a capability. Make your own from them.

AGENT_PATHS=/srv/files:/srv/backups switchgear agent run switchgear_agents.pipelines:agent
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from switchgear import Agent, load_pipelines

PATHS = "AGENT_PATHS"
"""Variable with the directories of this host that tasks may read and change; without it, none."""


def offering(paths: Collection[str | Path]) -> Agent:
    """The service, for tasks in these directories."""
    made = Agent("pipelines", version="0.1.0")
    load_pipelines(made, Path(__file__).parent, concurrency=2, host_paths=paths)
    return made


agent = offering([one for one in os.environ.get(PATHS, "").split(os.pathsep) if one])
