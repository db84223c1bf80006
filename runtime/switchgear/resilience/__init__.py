"""Failures and what to do about them: classes, delays. Pure."""
