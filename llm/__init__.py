"""Turns messages into text, inside this process.

What needs PyTorch is imported when its name is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from trackbed.llm.types import (
    Choices,
    Completion,
    Delta,
    Generator,
    Message,
    Part,
    Prompt,
    RawPrompt,
    SamplingParams,
    Usage,
)

if TYPE_CHECKING:
    from trackbed.llm.config import EngineConfig
    from trackbed.llm.encoder import Encoder
    from trackbed.llm.engine import Engine

__all__ = [
    "Choices",
    "Completion",
    "Delta",
    "Encoder",
    "Engine",
    "EngineConfig",
    "Generator",
    "Message",
    "Part",
    "Prompt",
    "RawPrompt",
    "SamplingParams",
    "Usage",
]

LATER = {
    "Encoder": "trackbed.llm.encoder",
    "Engine": "trackbed.llm.engine",
    "EngineConfig": "trackbed.llm.config",
}


def __getattr__(name: str) -> object:
    if name not in LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(LATER[name]), name)
