"""What is said of a document beside its text: YAML front matter in it, or a sidecar file next to it.

This file decides which values are taken, and that doubt closes: where the list of readers cannot be told
for certain, FormatError is raised, and the document is not read at all. It knows nothing of files.
"""

import datetime
import difflib
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from trackbed.retrieval.errors import FormatError
from trackbed.retrieval.types import ALLOW, Value

if TYPE_CHECKING:
    import yaml

MAX_CHARACTERS = 16 * 2**10  # every passage of a document carries its metadata
MAX_VALUES = 200
MAX_DEPTH = 20
LIKE_ALLOW = 0.85  # from what likeness on a key is a misspelled `allow`: allows, alow, Allow


def front_matter(text: str) -> tuple[int, dict[str, Value]]:
    """Where the text behind the front matter begins, and what that says; 0 and nothing where there is none.

    Front matter stands at the very beginning, between two lines `---`, and is a mapping in YAML.
    """
    begin = len(text) - len(text.lstrip())
    lines = text[begin : begin + MAX_CHARACTERS].splitlines(keepends=True)
    if not lines or lines[0].rstrip() != "---":
        return 0, {}
    last = next((i for i, line in enumerate(lines) if i and line.rstrip() in ("---", "...")), None)
    inside = lines[1:last]
    said = None if last is None else parse("".join(inside), first=text[:begin].count("\n") + 2)
    if last is not None and said is not None:
        return begin + sum(map(len, lines[: last + 1])), said
    # A ruled line, and prose under it. But a list of readers that is not read would show the document to all.
    blank = next((i for i, line in enumerate(inside) if not line.strip()), len(inside))
    if any(line.lstrip().casefold().startswith(ALLOW if i < blank else f"{ALLOW}:") for i, line in enumerate(inside)):
        raise FormatError(f"its front matter cannot be told from its text, and has a line that begins with `{ALLOW}`")
    return 0, {}


def parse(text: str, first: int = 1) -> dict[str, Value] | None:
    """What a mapping in YAML says; None when it is no mapping. `first` is the number of its first line.

    Values in values are named by both, with a full stop. Dates become text.
    """
    import yaml

    if len(text) > MAX_CHARACTERS:
        raise FormatError(f"metadata of {len(text)} characters, and at most {MAX_CHARACTERS} are read")
    try:
        _bound(yaml.parse(text, Loader=yaml.SafeLoader))
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            return {}
        if not isinstance(node, yaml.MappingNode):
            return None
        _no_key_twice(node, first)
        found = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + first if error.problem_mark else first
        raise FormatError(f"metadata, line {line}: no YAML ({error.problem})") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise FormatError(f"metadata that cannot be read ({type(error).__name__})") from error
    _check_readers(found)
    said: dict[str, Value] = {}
    for name, value in _values(found, ""):
        if name in said:
            raise FormatError(f"metadata that say {name!r} twice")
        if name != ALLOW and difflib.SequenceMatcher(None, ALLOW, _folded(name)).ratio() >= LIKE_ALLOW:
            raise FormatError(f"metadata with the key {name!r}; is it to be `{ALLOW}`, at the beginning of its line?")
        said[name] = value
        if len(said) > MAX_VALUES:
            raise FormatError(f"metadata with more than {MAX_VALUES} values")
    return said


def merged(inside: Mapping[str, Value], beside: Mapping[str, Value]) -> dict[str, Value]:
    """Front matter and sidecar as one; the sidecar wins. Of two lists of readers none does."""
    if inside.get(ALLOW, beside.get(ALLOW)) != beside.get(ALLOW, inside.get(ALLOW)):
        raise FormatError(f"its front matter and its sidecar differ in `{ALLOW}`; keep one of the two")
    return {**inside, **beside}


def titled(said: Mapping[str, Value], title: str) -> str:
    """The title that metadata give, else this one."""
    given = said.get("title", "")
    words = " ".join(given) if isinstance(given, tuple) else str(given)
    return " ".join(words.split()) or title


def _bound(events: "Iterator[yaml.Event]") -> None:
    """A few lines of YAML may unfold to more than memory holds, or nest deeper than can be followed."""
    import yaml

    depth = 0
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise FormatError("metadata that are nested too deeply")
        if isinstance(event, yaml.AliasEvent):
            raise FormatError("metadata with aliases (*name) are not read; write the values out")


def _no_key_twice(mapping: "yaml.MappingNode", first: int) -> None:
    """YAML takes the last of two values without a word, which may be the wrong list of readers."""
    seen: set[str] = set()
    for key, _ in mapping.value:
        name = str(key.value)
        if name in seen:
            raise FormatError(f"metadata, line {key.start_mark.line + first}: {name!r} is given twice")
        seen.add(name)


def _check_readers(found: Mapping[Any, Any]) -> None:
    if ALLOW not in found:
        return
    groups = found[ALLOW]
    if not isinstance(groups, list) or not all(isinstance(group, str) and group.strip() for group in groups):
        raise FormatError(f"`{ALLOW}` must be a list of groups, each a text, such as [staff, board]")


def _values(value: Any, name: str) -> Iterator[tuple[str, Value]]:
    if isinstance(value, list) and any(isinstance(part, list | dict) for part in value):
        value = {str(number): part for number, part in enumerate(value, 1)}
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _values(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        yield name, tuple(str(_scalar(part, name)) for part in value if part is not None)
    elif value is not None:
        yield name, _scalar(value, name)


def _scalar(value: Any, name: str) -> str | int | float | bool:
    if isinstance(value, datetime.date):  # a datetime is one
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str | int | float):
        return value
    raise FormatError(f"metadata whose {name!r} is neither text, nor a number, true, false or a list of these")


def _folded(name: str) -> str:
    return name.rpartition(".")[2].strip().casefold()
