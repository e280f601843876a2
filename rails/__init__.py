"""Decides what may be said."""
