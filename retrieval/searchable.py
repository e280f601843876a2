"""What a passage is found by."""

from trackbed.retrieval.types import Passage


def searchable(passage: Passage) -> str:
    """What is embedded of a passage, and whose words count: its text, under what it is about."""
    about = passage.heading or str(passage.metadata.get("title", ""))
    return f"{about}\n{passage.text}" if about else passage.text
