"""Finds passages."""
