"""Agents that check a git repository; each subpackage is a service and uses only the front door."""
