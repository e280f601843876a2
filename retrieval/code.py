"""Source code as it stands, with its definitions as an outline.

Python is parsed. In other languages a definition is told by how its line looks: it stands at the margin, or is the
first indentation inside of one that does, and has a keyword such as `class` and a name, or a name, an argument list
and a brace. What is missed costs a heading and nothing else. It knows nothing of files or passages.
"""

import ast
import re
import warnings
from collections.abc import Iterator, Sequence
from itertools import accumulate

from trackbed.retrieval.text import decode
from trackbed.retrieval.types import Document, Heading

MAX_PARSED = 2**20  # characters of Python; a longer file is data more often than code
WIDTH = 240  # of a line, which is looked at
LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")
KEYWORD = re.compile(
    r"\b(?:class|struct|interface|enum|trait|impl|fn|func|function|def|module|namespace|object|record|protocol|type|sub)"
    r"[ \t]{1,8}\*?[ \t]{0,8}([A-Za-z_$][\w$.:]{0,80})"
)
RECEIVER = re.compile(r"^func \([^()]{0,80}\) ?(\w{1,80})")  # a method in Go
ARROW = re.compile(
    r"^(?:export )?(?:default )?(?:const|let|var) ([\w$]{1,80}) ?= ?(?:async )?(?:function\b|\(|\w{1,80} ?=>)"
)
CREATE = re.compile(
    r"^create (?:or replace )?(?:temp |temporary |unique |materialized )?"
    r"(?:table|view|function|procedure|index|trigger|type) (?:if not exists )?([\w.\"`]{1,80})",
    re.IGNORECASE,
)
NAME = re.compile(r"[A-Za-z_~$][\w$~]{0,80}")
BEGIN_NO_DEFINITION = (
    "if else elif for foreach while until switch case match do try catch with return throw new import from use using "
    "package include require delete await yield and or not print echo assert static_assert"
)
NO_DEFINITION = frozenset(BEGIN_NO_DEFINITION.split())
COMMENT = ("//", "/*", "*", "#", "--", "@", ";;", "'''", '"""')
CLOSING = ("}", ")", "]", "end", "fi", "done", "esac", "{", "else", "rescue", "ensure", "when")


def read_code(data: bytes, source: str) -> Document:
    """A program; its title is the file's name."""
    text = decode(data)
    outline = _python(text) if source.lower().endswith((".py", ".pyi")) else None
    return _document(text, source, tuple(outline if outline is not None else _looks(text)))


def read_settings(data: bytes, source: str) -> Document:
    """Lines that define nothing, such as YAML, TOML or CSS."""
    return _document(decode(data), source, ())


def _document(text: str, source: str, outline: tuple[Heading, ...]) -> Document:
    return Document(source, text, title=source.rpartition("/")[2], structure="code", outline=outline)


def _python(text: str) -> list[Heading] | None:
    """The classes, functions and methods; None where the text is no Python of this version."""
    if len(text) > MAX_PARSED:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what the program's own authors are to be warned
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    lines = LINE.findall(text)
    starts = list(accumulate(map(len, lines), initial=0))
    headings: list[Heading] = []
    for node, level, name in _definitions(tree.body, 1):
        first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))]) - 1
        start = starts[_with_comments(lines, first)]
        headings.append(Heading(max(start, headings[-1].start if headings else 0), level, name))
    return headings


def _definitions(body: Sequence[ast.stmt], level: int) -> Iterator[tuple[ast.stmt, int, str]]:
    """The definitions, and under an empty name the first statement behind one that is none."""
    behind = False
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node, level, node.name
            if isinstance(node, ast.ClassDef):
                yield from _definitions(node.body, level + 1)
            behind = True
        elif behind:
            yield node, level, ""
            behind = False


def _looks(text: str) -> list[Heading]:
    """What looks like a definition, at the margin and one step inside."""
    lines = LINE.findall(text)
    starts = list(accumulate(map(len, lines), initial=0))
    headings: list[Heading] = []
    step = 0  # the indentation one step inside the definition; 0 while it is not known
    blank = True
    for i, line in enumerate(lines):
        bare = line.strip()
        if not bare:
            blank = True
            continue
        indent = len(line) - len(line.lstrip())
        after_blank, blank = blank, False
        if bare.startswith(COMMENT):
            continue
        following = next((one.strip() for one in lines[i + 1 : i + 3] if one.strip()), "")
        level = 1 if not indent else 2 if headings and headings[-1].title and indent == (step or indent) else 0
        if not level:
            continue
        if level == 2:
            step = indent
        name = _defined(" ".join(bare[:WIDTH].split()), following, inside=level == 2)
        if level == 1:
            step = 0
        if name or (level == 1 and after_blank and headings and not bare.startswith(CLOSING)):
            start = starts[_with_comments(lines, i)]
            headings.append(Heading(max(start, headings[-1].start if headings else 0), level, name))
    return headings


def _defined(line: str, following: str, inside: bool) -> str:
    """The name that a line defines; empty when it defines none. `following` is the line below it."""
    words = NAME.findall(line)
    if not words or words[0] in NO_DEFINITION:
        return ""
    for pattern in (RECEIVER, ARROW, CREATE):
        if match := pattern.match(line):
            return match[1].strip('"`')
    head, bracket, arguments = line.partition("(")
    if (match := KEYWORD.search(head)) and not head.startswith(("'", '"')):
        return match[1].rstrip(":.")
    if not bracket or "=" in head or '"' in head or not (line.endswith("{") or following.startswith("{")):
        return ""
    names = NAME.findall(head)
    if len(names) == 1 and not inside and not arguments.startswith(")"):
        return ""  # a call, whose last argument is a block
    return names[-1] if names else ""


def _with_comments(lines: Sequence[str], i: int) -> int:
    """The line where the comments and annotations begin that stand right above this one."""
    indent = len(lines[i]) - len(lines[i].lstrip())
    while i and (above := lines[i - 1]).strip() and above.lstrip().startswith(COMMENT):
        if len(above) - len(above.lstrip()) > indent + 1:  # a line of a comment may begin with a blank and a star
            break
        i -= 1
    return i
