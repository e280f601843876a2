"""Names of hosts: when two are the same, when one is part of another, and when one only looks like another.

This file knows names and how they are drawn. It knows nothing of URLs, nor of what a policy makes of a name.
"""

import ipaddress
import re
import unicodedata
from collections.abc import Set
from urllib.parse import unquote

from trackbed.rails.library.plain import CONFUSABLES

# Full stops of other scripts, which browsers read as dots (UTS #46).
DOTS = {ord(c): "." for c in "\u3002\uff0e\uff61"}
# Digits and letters of ASCII that are taken for each other at a glance; the rest is Unicode's confusables.
GLANCE = str.maketrans({"0": "o", "1": "l", "i": "l", "|": "l", "5": "s", "-": None, "_": None})
MOST_LABELS = 32  # of a name that are looked at, from its end
PAIRS = (("rn", "m"), ("vv", "w"))
NUMBER = re.compile(r"(?:0[xX][0-9a-fA-F]*|[0-9]+)\Z")
NAME = re.compile(r"[^\W_](?:[\w-]{0,61}[^\W_])?(?:\.[^\W_](?:[\w-]{0,61}[^\W_])?)*\Z")


def name_of(host: str) -> str:
    """The host in the one way that it is written: small letters, Unicode's own, without what browsers ignore.

    >>> name_of("WWW.Ｂank.com.") == name_of("www.%62ank.com")
    True
    """
    plain = unicodedata.normalize("NFKC", unquote(host).translate(DOTS)).translate(DOTS).lower()
    return unicodedata.normalize("NFC", ".".join(_label(label) for label in plain.strip(".").split(".")))


def is_domain(name: str) -> bool:
    """Whether a name that is in its one way is one of a domain or a host, and no number."""
    return len(name) <= 253 and NAME.match(name) is not None and not is_address(name)


def is_address(name: str) -> bool:
    """Whether the host is an IP address in any form that browsers read, such as `2130706433` or `0x7f.1`."""
    if name.startswith("["):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return NUMBER.match(name.rpartition(".")[2]) is not None  # what ends in a number is one (WHATWG URL, 3.5)
    return True


def parents(name: str) -> frozenset[str]:
    """The name itself, and every domain that it is under."""
    labels = name.split(".")[-MOST_LABELS:]
    return frozenset(".".join(labels[i:]) for i in range(len(labels)))


def likeness(name: str) -> str:
    """What the name looks like: names that look alike have the same one.

    >>> likeness("раураl.com") == likeness("paypa1.com")
    True
    """
    bare = "".join(c for c in unicodedata.normalize("NFD", name) if not unicodedata.combining(c))
    bare = bare.translate(CONFUSABLES).lower().translate(GLANCE)
    for drawn, read in PAIRS:
        bare = bare.replace(drawn, read)
    return bare


def imitates(name: str, domains: Set[str], looks: Set[str]) -> bool:
    """Whether the host is under none of the domains, and looks like one, or has one's name before its own.

    `looks` holds the likeness of each domain.
    """
    if parents(name) & domains:
        return False
    labels = name.split(".")[-MOST_LABELS:]
    inside = (".".join(labels[i:j]) for i in range(len(labels)) for j in range(i + 1, len(labels)))
    return bool(parents(likeness(name)) & looks) or any(run in domains for run in inside)


def _label(label: str) -> str:
    """A label that is written in Punycode (RFC 3492), as it is shown."""
    if not label.startswith("xn--"):
        return label
    try:
        return unicodedata.normalize("NFKC", label[4:].encode("ascii").decode("punycode")).lower()
    except (UnicodeError, ValueError, OverflowError):
        return label
