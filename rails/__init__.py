"""Decides what may be said.

The public names are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from trackbed.rails.config import RailConfig
    from trackbed.rails.errors import PolicyError, RailFailed, RailsError, StateRefused
    from trackbed.rails.pipeline import Pipeline
    from trackbed.rails.policy import Policy
    from trackbed.rails.state import dump_state, load_state
    from trackbed.rails.types import Models, Reply, State, ToolCall, ToolCheck, Turn, Verdict

__all__ = [
    "RAILS",
    "Models",
    "Pipeline",
    "Policy",
    "PolicyError",
    "RailConfig",
    "RailFailed",
    "RailsError",
    "Reply",
    "State",
    "StateRefused",
    "ToolCall",
    "ToolCheck",
    "Turn",
    "Verdict",
    "dump_state",
    "load_policy",
    "load_state",
]

# The rails that ship, by the name that a policy calls them. Nothing is imported until it is used, and a name outside
# the table is tried as an import path.
RAILS = {
    "length": "trackbed.rails.library.length:Length",
    "words": "trackbed.rails.library.words:Words",
    "regex": "trackbed.rails.library.regex:Regex",
    "repetition": "trackbed.rails.library.repetition:Repetition",
    "rate": "trackbed.rails.library.rate:Rate",
    "pii": "trackbed.rails.library.pii:Pii",
    "secrets": "trackbed.rails.library.secrets:Secrets",
    "urls": "trackbed.rails.library.urls:Urls",
    "markup": "trackbed.rails.library.markup:Markup",
    "code": "trackbed.rails.library.code:Code",
    "canary": "trackbed.rails.library.canary:Canary",
    "language": "trackbed.rails.library.language:Language",
    "topics": "trackbed.rails.library.topics:Topics",
    "jailbreak": "trackbed.rails.library.jailbreak:Jailbreak",
    "injection": "trackbed.rails.library.injection:Injection",
    "competitors": "trackbed.rails.library.competitors:Competitors",
    "toxicity": "trackbed.rails.library.toxicity:Toxicity",
    "hazards": "trackbed.rails.library.hazards:Hazards",
    "llama_guard": "trackbed.rails.library.llama_guard:LlamaGuard",
    "self_check": "trackbed.rails.library.self_check:SelfCheck",
    "json_schema": "trackbed.rails.library.json_schema:JsonSchema",
    "schema": "trackbed.rails.library.schema:Schema",
    "rule": "trackbed.rails.library.rule:Rule",
    "answerable": "trackbed.rails.library.answerable:Answerable",
    "grounding": "trackbed.rails.library.grounding:Grounding",
}

LATER = {
    "trackbed.rails.config": ("RailConfig",),
    "trackbed.rails.errors": ("PolicyError", "RailFailed", "RailsError", "StateRefused"),
    "trackbed.rails.pipeline": ("Pipeline",),
    "trackbed.rails.policy": ("Policy",),
    "trackbed.rails.state": ("dump_state", "load_state"),
    "trackbed.rails.types": ("Models", "Reply", "State", "ToolCall", "ToolCheck", "Turn", "Verdict"),
}


def load_policy(path_or_name: "str | Path") -> "Policy":
    """The policy of a file, of a folder's `policy.yaml`, or of a shipped name such as `default`.

    Raises PolicyError, with a line for each mistake that was found; `place` is the first one's.
    """
    # What reads YAML, schemas and templates is imported with the first policy.
    from trackbed.rails.policy import load_policy

    return load_policy(path_or_name)


def __getattr__(name: str) -> object:
    for module, names in LATER.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
