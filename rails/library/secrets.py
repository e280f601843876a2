"""Secrets: keys, tokens and passwords that somebody left in a text.

Issuers give their keys prefixes so that they can be found; private keys, JSON web tokens and URLs with a password
have forms of their own; those of rarer issuers come from detect-secrets. What is left is `password = ...`: there the
value has to look made up. Placeholders pass.
"""

import base64
import binascii
import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from math import log2
from typing import ClassVar

import re2
from pydantic import Field

from trackbed.rails.config import RailConfig
from trackbed.rails.library.partial import Beginnings
from trackbed.rails.library.plugins import PLUGINS, forms, trimmed
from trackbed.rails.library.spans import disjoint, fold
from trackbed.rails.types import Models, Stage, Streams, Then, Turn, Verdict


class Secrets:
    """Finds credentials. Of a URL, a header or an assignment only the secret is a finding, not what leads up to it."""

    stages: ClassVar[frozenset[Stage]] = frozenset({"input", "retrieval", "tools", "output"})
    actions: ClassVar[frozenset[Then]] = frozenset({"block", "mask", "drop"})
    streams: ClassVar[Streams] = "spans"

    class Config(RailConfig):
        """How sure to be of values that only their names call secret."""

        entropy: float = Field(
            3.0,
            ge=0,
            le=8,
            description="Bits per character from which the value of `api_key = ...` is taken for a secret; a higher "
            "number finds less. Passwords, and keys that have a form of their own, do not depend on it.",
        )

    def __init__(self, config: Config, models: Models) -> None:
        self.entropy = config.entropy
        more()  # so that it is the start that waits for them, and not the first text

    async def check(self, turn: Turn) -> Verdict:
        """Block on any credential; the categories say of which kinds, the findings where."""
        folded = fold(turn.text)
        findings = disjoint(folded.finding(label, *span) for label, span in self._secrets(folded.text))
        if not findings:
            return Verdict.allow()
        kinds = tuple(dict.fromkeys(finding.label for finding in findings))
        return Verdict.block(detail=", ".join(WORDS[kind] for kind in kinds), categories=kinds, findings=findings)

    def held(self, turn: Turn) -> int:
        """From where on a secret may have begun that is not complete."""
        folded = fold(turn.text)
        return folded.origin(min(begun.start(folded.text) for begun in beginnings()))

    def _secrets(self, text: str) -> Iterator[tuple[str, tuple[int, int]]]:
        """What is found of each kind, those with a form of their own first."""
        for kind in KINDS:
            for match in kind.form.finditer(text):
                if kind.proves(match.group(1)):
                    yield kind.label, match.span(1)
        for kind in more():
            for match in kind.form.finditer(text):
                start, end = trimmed(text, *match.span(1))
                if kind.proves(text[start:end]):
                    yield kind.label, (start, end)
        for match in ASSIGNMENT.finditer(text):
            name, quote, value = match.groups()
            value = value if quote else value.rstrip(".,:)")
            start = match.start(3)
            if is_stand_in(value, quoted=bool(quote)):
                continue
            if is_password(value) if name else is_random(value, self.entropy):
                yield "PASSWORD" if name else "API_KEY", (start, start + len(value))


# What a secret proves about itself ---------------------------------------------------------------------------------

FILLER = re2.compile(r"(?i)x{4,}|\*{3,}|•{3,}|\.{3}|…|your|place-?holder|redacted|change[_-]?me|insert[_-]|0{8,}")
SAMPLE = re2.compile(r"(?i)example|sample|dummy|^(?:none|null|true|false|undefined)$")
REFERENCE = re2.compile(r"^(?:\$[{(]|\$[A-Z_][A-Z0-9_]*$|\$[a-z_]+$|[{<\[%@])")  # to a value that is elsewhere
CODE = re2.compile(r"^[A-Za-z_][\w.]*[(\[{]|^[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+$|::|->")
PROSE = re2.compile(r"^[A-Za-z]+(?:[-_'/.,][A-Za-z]+){0,2}[!?]*$")


def is_written_out(secret: str) -> bool:
    """Whether a key of a known form is one, and not `sk-your-key-here`."""
    return not FILLER.search(secret)


def is_mixed(secret: str) -> bool:
    """Whether a key that is written out has digits and letters."""
    return is_written_out(secret) and any(c.isdigit() for c in secret) and any(c.isalpha() for c in secret)


def is_jwt(token: str) -> bool:
    """Whether the header of a JSON web token (RFC 7519) says how it is signed."""
    header = token.partition(".")[0]
    try:
        fields = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return False
    return isinstance(fields, dict) and "alg" in fields


def is_url_password(secret: str) -> bool:
    """Whether the password of a URL is written out."""
    return is_written_out(secret) and not REFERENCE.search(secret)


def is_stand_in(value: str, quoted: bool) -> bool:
    """Whether an assigned value is a placeholder, or code that gets the value from elsewhere."""
    if FILLER.search(value) or SAMPLE.search(value) or REFERENCE.search(value):
        return True
    return not quoted and bool(CODE.search(value))


def is_password(value: str) -> bool:
    """Whether an assigned password is one. "password: required" is prose, so a password of one word is not found."""
    return len(value) >= 6 and len(set(value)) >= 4 and not PROSE.search(value)


def is_random(value: str, bits: float) -> bool:
    """Whether an assigned key is as random as keys are."""
    return len(value) >= 12 and is_mixed(value) and entropy(value) >= bits


def entropy(text: str) -> float:
    """Shannon's entropy of the characters, in bits per character.

    >>> entropy("abcdabcd")
    2.0
    """
    return -sum(n / len(text) * log2(n / len(text)) for n in Counter(text).values())


# Kinds -------------------------------------------------------------------------------------------------------------


class Kind:
    """A kind of secret: the first group of its form, an RE2 pattern, is the secret, which has to prove itself."""

    def __init__(self, label: str, words: str, form: str, proves: Callable[[str], bool] = is_written_out) -> None:
        self.label = label
        self.words = words
        self.pattern = form
        self.form = re2.compile(form)
        self.proves = proves


KINDS = (
    Kind(
        "PRIVATE_KEY",
        "private key",
        r"(-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----(?:[\s>|\"]|\\[nr])*(?:[A-Za-z-]+: [^\n]*\s+)*"
        r"[A-Za-z0-9+/=]{32,}(?:[A-Za-z0-9+/=\s]|\\[nr])*(?:-----END [A-Z0-9 ]+-----)?)",
        lambda _: True,  # the body is long and random, and may hold what looks like filler
    ),
    Kind("JWT", "JSON web token", r"\b(eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*)", is_jwt),
    Kind("AWS_ACCESS_KEY", "AWS access key", r"\b((?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16})\b"),
    Kind("GITHUB_TOKEN", "GitHub token", r"\b(gh[pousr]_[A-Za-z0-9]{30,255}|github_pat_[A-Za-z0-9_]{30,255})"),
    Kind("GITLAB_TOKEN", "GitLab token", r"\b(gl(?:pat|dt|ptt|rt|soat)-[A-Za-z0-9_.-]{20,})"),
    Kind("SLACK_TOKEN", "Slack token", r"\b(xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-[0-9]-[A-Za-z0-9-]{20,})"),
    Kind("SLACK_WEBHOOK", "Slack webhook", r"\bhooks\.slack\.com/services/([A-Z0-9]+/[A-Z0-9]+/[A-Za-z0-9]{16,})"),
    Kind("GOOGLE_API_KEY", "Google API key", r"\b(AIza[A-Za-z0-9_-]{35})"),
    Kind("GOOGLE_CLIENT_SECRET", "Google client secret", r"\b(GOCSPX-[A-Za-z0-9_-]{24,})"),
    Kind("STRIPE_KEY", "Stripe key", r"\b((?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/]{24,})"),
    Kind("ANTHROPIC_API_KEY", "Anthropic API key", r"\b(sk-ant-[A-Za-z0-9_-]{20,})", is_mixed),
    Kind("OPENAI_API_KEY", "OpenAI API key", r"\b(sk-[A-Za-z0-9_-]{20,})", is_mixed),
    Kind("HUGGING_FACE_TOKEN", "Hugging Face token", r"\b(hf_[A-Za-z0-9]{30,})"),
    Kind("NPM_TOKEN", "npm token", r"\b(npm_[A-Za-z0-9]{36})\b"),
    Kind("PYPI_TOKEN", "PyPI token", r"\b(pypi-[A-Za-z0-9_-]{40,})", is_mixed),
    Kind("SENDGRID_KEY", "SendGrid key", r"\b(SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,})"),
    Kind("MAILGUN_KEY", "Mailgun key", r"\b(key-[0-9a-f]{32})\b"),
    Kind("TWILIO_KEY", "Twilio key", r"\b(SK[0-9a-f]{32})\b"),
    Kind("TELEGRAM_BOT_TOKEN", "Telegram bot token", r"\b([0-9]{8,10}:[A-Za-z0-9_-]{35})\b", is_mixed),
    Kind("SHOPIFY_TOKEN", "Shopify token", r"\b(shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32})\b"),
    Kind("DIGITALOCEAN_TOKEN", "DigitalOcean token", r"\b(do[opr]_v1_[0-9a-f]{64})\b"),
    Kind("DATABRICKS_TOKEN", "Databricks token", r"\b(dapi[0-9a-f]{32})\b"),
    Kind("AZURE_KEY", "Azure key", r"(?i)\b(?:AccountKey|SharedAccessKey)=([A-Za-z0-9+/]{30,}={0,2})", is_mixed),
    Kind("AUTHORIZATION", "authorisation header", r"(?i)\b(?:bearer|basic)\s+([A-Za-z0-9._~+/-]{16,}=*)", is_mixed),
    Kind(
        "URL_PASSWORD",
        "password in a URL",
        r"\b[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#:@<>\"']*:([^\s/?#<>\"']+)@[\w.\[-]",
        is_url_password,
    ),
)
# password = value, "api_key": "value", <token>value</token>, my password is value
ASSIGNED = (
    r"(?i)(?:(password|passwd|passphrase|passcode|pwd)"
    r"|(?:api|access|secret|auth|private|encryption|signing|account)[_ -]?key|token|secret|credential)"
    r"[\\\"'`*]{0,3}(?:\s{0,3}(?::=|=>|[=:>])\s{0,3}|\s+is:?\s+)([\\\"'`]{0,2})([^\s\"'`\\<;]{6,})"
)
ASSIGNMENT = re2.compile(ASSIGNED)
WORDS = {kind.label: kind.words for kind in (*PLUGINS, *KINDS)} | {
    "PASSWORD": "password",
    "API_KEY": "API key or token",
}


@cache
def more() -> tuple[Kind, ...]:
    """The kinds of detect-secrets, which is loaded here."""
    return tuple(
        Kind(form.plugin.label, form.plugin.words, form.pattern, is_mixed if form.plugin.mixed else is_written_out)
        for form in forms()
    )


@cache
def beginnings() -> tuple[Beginnings, Beginnings]:
    """The beginnings of all secrets; made when a text is first streamed."""
    return Beginnings([*(kind.pattern for kind in KINDS), ASSIGNED]), Beginnings([kind.pattern for kind in more()])
