"""Ways to run a step; each module is one, and they do not know each other."""
