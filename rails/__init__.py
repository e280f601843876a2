"""Decides what may be said."""

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
