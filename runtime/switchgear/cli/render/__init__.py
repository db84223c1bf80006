"""How answers look: pure functions from plain values to rich renderables and texts."""
