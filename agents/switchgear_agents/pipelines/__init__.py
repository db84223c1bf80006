"""The service `pipelines`: every template of this folder is a capability. Make your own from them.

switchgear agent run switchgear_agents.pipelines:agent
"""

from __future__ import annotations

from pathlib import Path

from switchgear import Agent, load_pipelines

agent = Agent("pipelines", version="0.1.0")

load_pipelines(agent, Path(__file__).parent, concurrency=2)
