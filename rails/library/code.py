"""Code: object to texts in the shape of an injection into SQL, a shell, or a template.

Shapes, not grammars: what tells an attack is that it breaks out of a value, such as a quote and a condition that is
always true, a separator and a command, or an expression that a template would evaluate. Code that only does its work
passes; what is meant to show an attack looks like one. All matching is RE2's, in linear time.
"""

from typing import Any, ClassVar, Literal

import re2
from pydantic import Field

from trackbed.rails.config import RailConfig
from trackbed.rails.library.spans import disjoint, fold
from trackbed.rails.types import Models, Stage, Streams, Then, Turn, Verdict

Kind = Literal["sql", "shell", "template"]
KINDS: tuple[Kind, ...] = ("sql", "shell", "template")
WORDS: dict[Kind, str] = {"sql": "SQL injection", "shell": "shell injection", "template": "template injection"}
LABELS: dict[Kind, str] = {"sql": "SQL_INJECTION", "shell": "SHELL_INJECTION", "template": "TEMPLATE_INJECTION"}

_S = r"(?:\s|/\*[^*]{0,40}\*/|\+|%20|%0a|%09)"  # a space of SQL, and what is used in its place
_Q = r"(?:\\?['\"`]|%27|%22)"
_VALUE = r"(?:[0-9]{1,9}|'[^'\n]{0,40}'?|\\?\"[^\"\\\n]{0,40}\\?\"?)"  # a constant: a column is compared by any query
# A word that a quote ends and none begins.
_ENDED = r"(?:^|[\s=\"(:,])[\w.@%-]{0,40}(?:'|%27)"
_COMMANDS = (
    r"(?:cat|ls|rm|whoami|wget|curl|nc|ncat|netcat|bash|sh|zsh|dash|powershell|pwsh|cmd(?:\.exe)?|python[23]?|perl|ruby"
    r"|php|uname|ping|nslookup|chmod|chown|shutdown|reboot|mkfifo|telnet|sleep|base64|printenv"
    r"|certutil|rundll32|scp|ssh|crontab|useradd|passwd|ifconfig|dd|mkfs(?:\.\w{1,8})?)"
)
_PATH = r"(?:/(?:usr/)?s?bin/)?"
_FILE = r"(?:/etc/(?:passwd|shadow|hosts|sudoers)|/proc/self/environ|~?/\.ssh/|/root/|\$HOME/\.)"
_FETCH = rf"\b(?:curl|wget)\s[^\n|;&]{{1,300}}\|\s*(?:sudo\s+)?{_PATH}(?:ba|z|da|k)?sh\b"
# What evaluates to something of the server's, in the expressions of templates.
_INSIDE = (
    r"(?:__(?:class|mro|subclasses|globals|builtins|import|init|base|bases)__|\b(?:self|request|config|cycler|joiner"
    r"|lipsum|namespace|url_for|get_flashed_messages)\s*(?:\.|\[|\|)[^}]{0,80}(?:__|environ|secret_key|application|items\()"
    r"|\bconfig\.items\(|\bos\.(?:popen|system|environ)|\bpopen\(|\bsubprocess\b|\bconstructor\s*(?:\.|\[)\s*['\"]?constructor"
    r"|\bprocess\.(?:env|mainModule|binding)|\brequire\(\s*['\"]|\bchild_process|getRuntime\(|java\.lang\.|T\(java"
    r"|freemarker\.template|\?new\(|\.getClass\(|registerUndefinedFilterCallback|\b_self\.env|\bsystem\(|\bexec\()"
)
_SUM = r"\s*['\"(]{0,2}[0-9]{1,9}['\")]{0,2}\s*[*+]\s*['\"(]{0,2}[0-9]{1,9}['\")]{0,2}\s*"

SHAPES: dict[Kind, tuple[str, ...]] = {
    "sql": (
        # A quote ends the value, and a condition that always holds follows.
        rf"(?i){_Q}\s*\)*{_S}*(?:(?:{_S}|\b)(?:or|and)\b|\|\||&&){_S}+(?:not{_S}+)?\(*{_VALUE}{_S}*(?:=|<|>|\blike\b|\bis\b){_S}*{_VALUE}",
        rf"(?i){_Q}\s*\)*{_S}*(?:\bor\b|\|\|){_S}*{_Q}[^'\"\n]{{0,30}}{_Q}{_S}*=",
        r"(?i)\b(?:where|and)\s+\w+\s*=\s*[0-9']\w*'?\s+or\s+(?:1\s*=\s*1|'1'\s*=\s*'1'?|true)\b",
        rf"(?i)\b[0-9]+{_S}+or{_S}+(?:1{_S}*=\s*1|true)\b{_S}*(?:--|#|;|[\"')]|$)",
        # A quote or a number, and a second query or a comment over the rest of the first.
        rf"(?i)(?:{_Q}|\b-?[0-9]+)\s*\)*{_S}*\bunion\b{_S}+(?:all{_S}+|distinct{_S}+)?select\b",
        rf"(?i){_ENDED}[\t\x20]*\)*[\t\x20]*;(?:[\t\x20]|%20|\+|/\*[^*]{{0,40}}\*/)*(?:drop|delete|insert|update|alter|truncate|create|exec(?:ute)?|shutdown|grant|declare)\b",
        r"(?i)\b[0-9]+\s*;\s*(?:drop|truncate|alter)\s+(?:table|database|schema)\b",
        rf"{_ENDED}\)*(?:--|\s*(?:--|#)\s*(?:[\"']|$)|/\*)",
        # Waiting and reading, which a query of an application does not do.
        rf"(?i)(?:{_Q}|;|\band\b|\bor\b|\b[0-9])\s*\)*{_S}*(?:waitfor{_S}+delay|benchmark\s*\(\s*[0-9]{{4}}|pg_sleep\s*\(|sleep\s*\(\s*[0-9]+\s*\)\s*(?:--|#|$|'))",
        r"(?i)\bxp_cmdshell\s*[('\"]|\binto\s+(?:out|dump)file\s+['\"]|\bload_file\s*\(|\b(?:extractvalue|updatexml)\s*\([^)]{0,40}concat",
        rf"(?i)\bunion{_S}+(?:all{_S}+)?select\b[^;\n]{{0,200}}\b(?:information_schema|sqlite_master|pg_catalog|sys\.tables|mysql\.user)",
    ),
    "shell": (
        # A separator, and a command with what is worth taking or breaking.
        rf"(?:;|\|\|?|&&?|`|\$\(|%0a|\\n)\s*(?:sudo\s+)?{_PATH}(?:cat|tail|head|less|more|cp|base64|xxd|strings)\s+[^\n;|&]{{0,60}}{_FILE}",
        rf"['\"\w.)]\s*(?:;|\|\|?|&&?)\s*(?:sudo\s+)?{_PATH}rm\s+-(?:rf|fr|r\s+-f|f\s+-r)\b",
        r"\brm\s+-(?:rf|fr|r\s+-f|f\s+-r)\s+(?:--no-preserve-root\s+)?(?:/(?:\s|\*|$)|~(?:\s|/?\*|$)|\$HOME(?:\s|$))",
        _FETCH,
        # A value that a command stands in for, or that ends with one.
        rf"(?:^|[\"'=,:\s])[\w./@%-]{{1,60}}['\"]?(?:;|\|\|?|&&)\s?(?:{_PATH}){_COMMANDS}(?:\s+-\w+|\s+/\S+)?\s*(?:['\";#&]|$)",
        rf"[\w./@:-]['\"]?\s?(?:;|&&|\|\|?)\s*{_PATH}(?:whoami|uname\s+-a|printenv|ifconfig|net\s+user)\b\s*(?:['\";#|&)]|$)",
        rf"[\w./@:-]['\"]?\s?(?:;|[^|]\|)\s*{_PATH}id\s*(?:['\"]|$)",
        rf"[\w./@:-]\|{_PATH}id\s*(?:['\"]|$)",
        rf"[=:]\s*['\"]?(?:\$\(|`)\s*{_PATH}(?:whoami|id|uname|cat\s+/etc|curl\s|wget\s|nc\s|printenv|env\b)",
        r"(?i)\b(?:nc|ncat|netcat)\s+(?:-\w+\s+)*-\w*e\w*\s+\S*(?:sh|cmd)|\bbash\s+-i\s*>&?\s*/dev/tcp/|/dev/tcp/[\w.]+/[0-9]+",
        r"\$\{IFS\}|\$IFS\$?[0-9]|\(\)\s*\{\s*:;\s*\}\s*;|:\(\)\s*\{\s*:\|:&\s*\}\s*;",
        r"(?i)\bpowershell(?:\.exe)?\s[^\n]{0,60}-(?:e|enc|encodedcommand)\s+[a-z0-9+/=]{20,}",
        r"(?i)\|\s*base64\s+(?:-d|--decode)\s*\|\s*(?:ba|z|da)?sh\b|\bdd\s+if=/dev/(?:zero|u?random)\s+of=/dev/[a-z]|>\s*/dev/sd[a-z]\b",
    ),
    "template": (
        rf"\{{\{{{_SUM}\}}\}}|\$\{{{_SUM}\}}|#\{{{_SUM}\}}|<%={_SUM}%>|\*\{{{_SUM}\}}|@\({_SUM}\)|\{{{{='?{_SUM}'?\}}\}}",
        r"(?i)\$\{[^}\n]{0,20}\bjndi\s*:|\$\{\s*(?:\$\{[^}\n]{0,40}\}\s*|[jndi]){2,}|\bjndi:(?:ldaps?|rmi|dns|iiop|corba|nds|http)s?:",
        r"\$\{(?:lower|upper|env|sys|java|main|ctx|bundle|date):[^}\n]{0,80}:?-?[^}\n]{0,20}\}",
        rf"\{{\{{[^}}\n]{{0,200}}{_INSIDE}",
        rf"\{{%[^%\n]{{0,200}}{_INSIDE}",
        rf"\$\{{[^}}\n]{{0,200}}{_INSIDE}",
        rf"#\{{[^}}\n]{{0,200}}{_INSIDE}",
        rf"<%[=\-]?[^%\n]{{0,200}}{_INSIDE}",
        r"<#assign\s[^>\n]{0,200}(?:\?new\(|freemarker)|\{php\}|\{\{\s*['\"][^'\"\n]{0,80}['\"]\s*\|\s*(?:filter|map|system|exec)\b",
        r"#set\s*\(\s*\$\w+\s*=[^)\n]{0,120}(?:getClass|forName|Runtime)|\$\w+\.getClass\(\)\.forName",
    ),
}


class Code:
    """Finds injections by their shapes."""

    stages: ClassVar[frozenset[Stage]] = frozenset({"input", "retrieval", "tools", "output"})
    actions: ClassVar[frozenset[Then]] = frozenset({"block", "mask", "drop", "regenerate"})
    streams: ClassVar[Streams] = "whole"  # a comment at the end of a line is one only where the line ends

    class Config(RailConfig):
        """What to look for."""

        kinds: list[Kind] = Field(
            default_factory=lambda: list(KINDS), min_length=1, description="What is looked for: sql, shell, template."
        )

    def __init__(self, config: Config, models: Models) -> None:
        self.shapes = [(kind, shape) for kind in KINDS if kind in config.kinds for shape in _shapes(kind)]

    async def check(self, turn: Turn) -> Verdict:
        """Block on any shape of an injection; the categories say of which kinds, the findings where."""
        folded = fold(turn.text)
        found = [(kind, match.span()) for kind, shape in self.shapes for match in shape.finditer(folded.text)]
        if not found:
            return Verdict.allow()
        kinds = tuple(dict.fromkeys(kind for kind, _ in found))
        findings = disjoint(folded.finding(LABELS[kind], *span) for kind, span in found)
        return Verdict.block(detail=", ".join(WORDS[kind] for kind in kinds), categories=kinds, findings=findings)


COMPILED: dict[Kind, tuple[Any, ...]] = {}  # Any: re2 has no types


def _shapes(kind: Kind) -> tuple[Any, ...]:  # Any: as above
    """The shapes of a kind; compiled when a policy first asks for them."""
    if kind not in COMPILED:
        COMPILED[kind] = tuple(re2.compile(f"(?m){shape}") for shape in SHAPES[kind])
    return COMPILED[kind]
