"""A conversation's state as JSON, to be kept wherever the caller likes, and back again.

With a key it is signed, and only what was signed with that key is read. Without one it has a checksum, which finds
damage and no forger: keep it then where nobody else can write. This file knows the form of a state. What its
variables and flows mean is the policy's business.
"""

import hashlib
import hmac
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from trackbed.rails.errors import StateRefused
from trackbed.rails.types import DIGEST_BYTES, Cursor, State

VERSION = 1
MAX_STATE = 65_536  # characters of JSON
MAX_FLOWS = 4  # that wait; with one more, the oldest is forgotten
MAX_NAME = 120  # characters of a variable's or a flow's name
MAX_COUNT = 2**53  # of anything: the integers that every reader of JSON agrees on
MIN_KEY = 16  # bytes

HEX = re.compile(f"([0-9a-f]{{{2 * DIGEST_BYTES}}})?")
DOMAIN = b"trackbed state 1\n"  # so that a signature is of nothing else that has the same key


def dump_state(state: State, key: bytes | None = None) -> str:
    """The state as JSON: signed where there is a key, else with a checksum. Raises ValueError for a short key."""
    body = {
        "version": VERSION,
        "vars": dict(state.vars),
        "flows": [{"flow": c.flow, "ask": c.ask, "asked": c.asked} for c in state.flows],
        "judged": state.judged,
        "digest": state.digest,
    }
    return _canonical(body | {_seal_name(key): _seal(body, key)})


def load_state(text: str, key: bytes | None = None) -> State:
    """The state that `dump_state` wrote with this key. Raises StateRefused, and ValueError for a short key."""
    name = _seal_name(key)
    body = _object(text)
    seal = body.pop(name, None)
    if seal is None and key and "checksum" in body:
        raise StateRefused("the state is not signed, and a key is given; it was written without one")
    if seal is None and not key and "signature" in body:
        raise StateRefused("the state is signed, and no key is given to check it with")
    if not isinstance(seal, str):
        raise StateRefused(f"the state has no {name}")
    if not hmac.compare_digest(seal.encode("utf-8", "replace"), _seal(body, key).encode()):
        raise StateRefused(f"the state was changed, or written with another key: its {name} does not fit")
    if body.keys() != {"version", "vars", "flows", "judged", "digest"} or body["version"] != VERSION:
        raise StateRefused(f"the state is not of version {VERSION}")
    return _state(body)


def _seal_name(key: bytes | None) -> str:
    if key is not None and len(key) < MIN_KEY:
        raise ValueError(f"a key of {len(key)} bytes; it takes {MIN_KEY} or more, such as secrets.token_bytes(32)")
    return "signature" if key else "checksum"


def _seal(body: Mapping[str, Any], key: bytes | None) -> str:
    message = DOMAIN + _canonical(body).encode()
    return hmac.digest(key, message, "sha256").hex() if key else hashlib.sha256(message).hexdigest()


def _canonical(body: Mapping[str, Any]) -> str:
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


def _object(text: str) -> dict[str, Any]:
    """The JSON object of a text."""
    if len(text) > MAX_STATE:
        raise StateRefused(f"the state has {len(text)} characters; one has {MAX_STATE} at most")
    try:
        found = json.loads(text)
        _canonical(found)  # what nests too deep to be written does not count as read either
    except (ValueError, RecursionError):
        raise StateRefused("the state is not JSON") from None
    if not isinstance(found, dict):
        raise StateRefused("the state is JSON, but no object")
    return found


def _state(body: Mapping[str, Any]) -> State:
    """The state of a body whose seal fits. Whoever has no key can seal anything, so every value is looked at."""
    written, flows, judged, digest = body["vars"], body["flows"], body["judged"], body["digest"]
    if not isinstance(written, dict) or not all(_is_name(n) and _is_value(v) for n, v in written.items()):
        raise StateRefused("the state's variables are not names with plain values")
    if not isinstance(flows, list) or len(flows) > MAX_FLOWS:
        raise StateRefused(f"the state's flows are no list of {MAX_FLOWS} at most")
    if not _is_count(judged) or not isinstance(digest, str) or not HEX.fullmatch(digest):
        raise StateRefused("the state does not say which messages were judged")
    if bool(judged) != bool(digest):
        raise StateRefused("the state counts messages without their digest")
    return State(written, tuple(map(_cursor, flows)), judged, digest)


def _cursor(written: object) -> Cursor:
    if isinstance(written, dict) and written.keys() == {"flow", "ask", "asked"}:
        flow, ask, asked = written["flow"], written["ask"], written["asked"]
        if _is_name(flow) and _is_name(ask) and _is_count(asked):
            return Cursor(flow, ask, asked)
    raise StateRefused("a flow of the state does not say where it waits")


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT


def _is_value(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str | bool) or (isinstance(value, int) and abs(value) <= MAX_COUNT)
