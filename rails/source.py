"""A policy's YAML as a tree in which every key and value knows where it stands.

The file is read event by event, so nothing in it is ever constructed: no tags but `!include`, no more nodes,
bytes or depth than the limits below, however aliases multiply. Words mean what YAML 1.2 says, so `on`, `yes`
and `no` are words. This file knows nothing of what a policy may say.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from trackbed.rails.errors import Place, PolicyError

MAX_BYTES = 262_144  # of all files of a policy together
MAX_NODES = 20_000
MAX_DEPTH = 32
MAX_KEY = 100  # characters
MAX_INCLUDES = 8  # files that include each other
# What ends a line for YAML and not in an editor: whoever reviews the file would not see the line that follows.
HIDDEN_BREAK = re.compile("\r(?!\n)|[\x85\u2028\u2029]")

# libyaml where it is there: it is ten times as fast, and gives the same events.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

NULL = frozenset({"", "~", "null", "Null", "NULL"})
BOOLEAN = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
NUMBER = re.compile(r"[-+]?(\.[0-9]{1,18}|[0-9]{1,18}\.[0-9]{0,18}|[0-9]{1,18}(?=[eE]))([eE][-+]?[0-9]{1,2})?")

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Node:
    """A value of the file: a scalar, a list of nodes, or nodes by their keys."""

    value: "Scalar | list[Node] | dict[str, Node]"
    place: Place  # of the value
    key: Place  # of the key that names it, or of the value where no key does
    text: Place  # of the first line of a scalar's text, which may stand in another file

    @property
    def keys(self) -> "dict[str, Node]":
        """The nodes by their keys; none where this is no mapping."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> "list[Node]":
        """The nodes of a list; none where this is no list."""
        return self.value if isinstance(self.value, list) else []

    def plain(self) -> Any:
        """The value without places: what a JSON file could hold."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        return [node.plain() for node in self.value] if isinstance(self.value, list) else self.value

    def at(self, path: Sequence[str | int]) -> "Node":
        """The node at a path of keys and indices, or the last one on the way that there is."""
        node = self
        for step in path:
            if isinstance(step, str) and step in node.keys:
                node = node.keys[step]
            elif isinstance(step, int) and step < len(node.items):
                node = node.items[step]
        return node


@dataclass(slots=True)
class Spent:
    """How much the files of a policy have taken, with all that they include and extend."""

    bytes: int = 0
    nodes: int = 0


def read_source(file: Path, spent: Spent | None = None) -> Node:
    """The tree of a policy's file and of what it includes from its own folder. Raises PolicyError."""
    return _Reader(file.parent, spent or Spent()).read(file, Place(str(file), 1, 1), ())


def inside(folder: Path, name: str, place: Place) -> Path:
    """The file that a name means, where it stands in this folder when links are followed. Raises PolicyError."""
    try:
        file = folder / name
        outside = not file.resolve().is_relative_to(folder.resolve())
        file.is_file()  # raises where no file can have that name
    except (OSError, ValueError, RuntimeError):  # too long, with a NUL, or links in a circle
        raise PolicyError(f"{name!r} cannot be the name of a file", place) from None
    if outside:
        raise PolicyError(f"{name!r} is outside the policy's folder, {folder}", place)
    return file


class _Limits(NamedTuple):
    nodes: int
    height: int


class _Reader:
    """Reads a file and what it includes; its limits are for all files of the policy together."""

    def __init__(self, folder: Path, spent: Spent) -> None:
        self.folder = folder
        self.spent = spent

    def read(self, file: Path, place: Place, including: tuple[Path, ...]) -> Node:
        """The tree of a YAML file, which stands at `place` in the policy."""
        shown = str(file)
        text = self._text(file, place)
        if file.suffix == ".json":  # which is YAML, save that a tab may stand between its parts, and only there
            text = text.replace("\t", " ")
        events = iter(_events(text, shown))
        document = _Document(self, shown, events, (*including, file.resolve()))
        return document.root(place.key)

    def include(self, name: str, place: Place, including: tuple[Path, ...]) -> Node:
        """What `!include` puts in place: the tree of a YAML file, or the text of any other."""
        file = inside(self.folder, name, place)
        target = file.resolve()
        if target in including:
            raise PolicyError(f"'{name}' includes itself", place)
        if len(including) > MAX_INCLUDES:
            raise PolicyError(f"more than {MAX_INCLUDES} files include each other", place)
        if target.suffix in (".yaml", ".yml", ".json"):
            return self.read(file, place, including)
        return Node(self._text(target, place), place, place, Place(str(file), 1, 1, place.key))

    def count(self, nodes: int, place: Place) -> None:
        """Raise PolicyError where the tree grows too large, which only aliases of aliases do."""
        self.spent.nodes += nodes
        if self.spent.nodes > MAX_NODES:
            raise PolicyError(f"a policy of more than {MAX_NODES} values, its aliases written out", place)

    def _text(self, file: Path, place: Place) -> str:
        try:
            if not file.is_file():  # nor is a pipe or a device, which might never end
                raise PolicyError(f"there is no file {file}", place)
            with file.open("rb") as opened:
                data = opened.read(MAX_BYTES - self.spent.bytes + 1)
        except OSError as error:
            raise PolicyError(f"{file} cannot be read: {error.strerror}", place) from None
        self.spent.bytes += len(data)
        if self.spent.bytes > MAX_BYTES:
            raise PolicyError(f"a policy is at most {MAX_BYTES // 1024} KiB, with all that it includes", place)
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise PolicyError("the file is not UTF-8 text", Place(str(file), line, 1)) from None


class _Document:
    """One YAML file on its way from events to a tree."""

    def __init__(self, reader: _Reader, file: str, events: Iterator[yaml.Event], including: tuple[Path, ...]) -> None:
        self.reader = reader
        self.file = file
        self.events = events
        self.including = including
        self.anchors: dict[str, tuple[Node, _Limits]] = {}

    def root(self, path: str) -> Node:
        """The tree of the file's only document."""
        event = next(self.events)
        while isinstance(event, yaml.StreamStartEvent | yaml.DocumentStartEvent):
            event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            raise PolicyError("the file is empty; a policy begins with 'policy: 1'", Place(self.file, 1, 1))
        node, _ = self._node(event, path, 0, None)
        next(self.events)
        if not isinstance(event := next(self.events), yaml.StreamEndEvent):
            raise PolicyError("a second document; a file holds one", self._place(event, path))
        return node

    def _node(self, event: yaml.Event, path: str, depth: int, key: Place | None) -> tuple[Node, _Limits]:
        place = self._place(event, path)
        if depth > MAX_DEPTH:
            raise PolicyError(f"nested deeper than {MAX_DEPTH}", place)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, place, depth, key or place)
        self.reader.count(1, place)
        assert isinstance(event, yaml.NodeEvent)
        self._check_tag(event, place)
        if isinstance(event, yaml.ScalarEvent):
            node, limits = self._scalar(event, place, key or place), _Limits(1, 1)
        else:
            value: list[Node] | dict[str, Node]
            of_mapping = isinstance(event, yaml.MappingStartEvent)
            value, limits = self._mapping(path, depth) if of_mapping else self._sequence(path, depth)
            node = Node(value, place, key or place, place)
        if event.anchor:
            self.anchors[event.anchor] = node, limits
        return node, limits

    def _mapping(self, path: str, depth: int) -> tuple[dict[str, Node], _Limits]:
        found: dict[str, Node] = {}
        parts: list[_Limits] = []
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            place = self._place(event, path)
            if not isinstance(event, yaml.ScalarEvent) or event.tag or event.anchor:
                raise PolicyError("a key is a plain word", place)
            if len(event.value) > MAX_KEY:
                raise PolicyError(f"a key of {len(event.value)} characters; the limit is {MAX_KEY}", place)
            name = event.value
            inside = f"{path}.{name}" if path else name
            place = self._place(event, inside)
            if name in found:
                raise PolicyError(f"{name!r} is given twice; the first stands in line {found[name].key.line}", place)
            found[name], limits = self._node(next(self.events), inside, depth + 1, place)
            parts.append(limits)
        return found, _together(parts)

    def _sequence(self, path: str, depth: int) -> tuple[list[Node], _Limits]:
        found: list[Node] = []
        parts: list[_Limits] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            node, limits = self._node(event, f"{path}[{len(found)}]", depth + 1, None)
            found.append(node)
            parts.append(limits)
        return found, _together(parts)

    def _alias(self, event: yaml.AliasEvent, place: Place, depth: int, key: Place) -> tuple[Node, _Limits]:
        if event.anchor not in self.anchors:
            raise PolicyError(f"'*{event.anchor}' stands for nothing that is complete above it", place)
        node, limits = self.anchors[event.anchor]
        self.reader.count(limits.nodes, place)
        if depth + limits.height > MAX_DEPTH:
            raise PolicyError(f"nested deeper than {MAX_DEPTH}", place)
        # What is wrong with the value here is told here; what is wrong inside of it, where it is written.
        return replace(node, place=place, key=key), limits

    def _scalar(self, event: yaml.ScalarEvent, place: Place, key: Place) -> Node:
        if event.tag == "!include":
            node = self.reader.include(event.value, place, self.including)
            return Node(node.value, node.place, key, node.text)
        # The text of a block begins in the line below its sign.
        text = Place(place.file, place.line + 1, 1, place.key) if event.style in ("|", ">") else place
        return Node(_value(event), place, key, text)

    def _check_tag(self, event: yaml.NodeEvent, place: Place) -> None:
        tag = getattr(event, "tag", None)
        if tag == "!include":
            if not isinstance(event, yaml.ScalarEvent) or not event.value:
                raise PolicyError("'!include' takes the path of a file", place)
        elif tag:
            raise PolicyError(f"{tag[:MAX_KEY]!r} is not a tag of a policy; the only one is '!include'", place)

    def _place(self, event: yaml.Event, path: str) -> Place:
        mark = event.start_mark
        assert mark is not None
        return Place(self.file, mark.line + 1, mark.column + 1, path)


def _events(text: str, file: str) -> Iterator[yaml.Event]:
    """The events of a YAML text; what is no YAML raises PolicyError."""
    if found := HIDDEN_BREAK.search(text):
        line, column = text.count("\n", 0, found.start()) + 1, found.start() - text.rfind("\n", 0, found.start())
        words = f"U+{ord(found[0]):04X} ends a line for YAML and not in an editor; end lines with a line feed"
        raise PolicyError(words, Place(file, line, column))
    try:
        yield from yaml.parse(text, Loader=LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        assert mark is not None
        raise PolicyError(f"this is not YAML: {error.problem}", _within(text, file, mark)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise PolicyError("a character that YAML does not allow", Place(file, line, 1)) from None


def _within(text: str, file: str, mark: yaml.Mark) -> Place:
    """Where a mistake stands; one beyond the last line is told at its end."""
    lines = text.split("\n")
    if mark.line < len(lines):
        return Place(file, mark.line + 1, mark.column + 1)
    return Place(file, len(lines), len(lines[-1]) + 1)


def _value(event: yaml.ScalarEvent) -> Scalar:
    """What a scalar means; anything in quotes is text, and so is a number too long to be one."""
    word = event.value
    if event.style not in (None, "") or not event.implicit[0]:
        return word
    if word in NULL:
        return None
    if word in BOOLEAN:
        return BOOLEAN[word]
    if INTEGER.fullmatch(word):
        return int(word)
    return float(word) if NUMBER.fullmatch(word) else word


def _together(parts: Sequence[_Limits]) -> _Limits:
    return _Limits(1 + sum(p.nodes for p in parts), 1 + max((p.height for p in parts), default=0))
