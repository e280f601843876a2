"""Trackbed inside other frameworks, and their parts inside it."""
