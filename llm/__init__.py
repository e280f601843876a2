"""Turns messages into text, inside this process."""
