"""Decides what may be said.

The public names are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trackbed.rails.errors import PolicyError, RailFailed, RailsError
    from trackbed.rails.pipeline import Pipeline
    from trackbed.rails.policy import Policy, load_policy
    from trackbed.rails.types import Models, Reply, Turn, Verdict

__all__ = [
    "RAILS",
    "Models",
    "Pipeline",
    "Policy",
    "PolicyError",
    "RailFailed",
    "RailsError",
    "Reply",
    "Turn",
    "Verdict",
    "load_policy",
]

# The rails that ship, by the name that a policy calls them. Nothing is imported until it is used, and a name outside
# the table is tried as an import path.
RAILS = {
    "length": "trackbed.rails.library.length:Length",
    "regex": "trackbed.rails.library.regex:Regex",
    "pii": "trackbed.rails.library.pii:Pii",
    "secrets": "trackbed.rails.library.secrets:Secrets",
    "jailbreak": "trackbed.rails.library.jailbreak:Jailbreak",
    "injection": "trackbed.rails.library.injection:Injection",
    "llama_guard": "trackbed.rails.library.llama_guard:LlamaGuard",
    "grounding": "trackbed.rails.library.grounding:Grounding",
}

LATER = {
    "trackbed.rails.errors": ("PolicyError", "RailFailed", "RailsError"),
    "trackbed.rails.pipeline": ("Pipeline",),
    "trackbed.rails.policy": ("Policy", "load_policy"),
    "trackbed.rails.types": ("Models", "Reply", "Turn", "Verdict"),
}


def __getattr__(name: str) -> object:
    for module, names in LATER.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
