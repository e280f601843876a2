"""Markdown out of other formats: headings, list items, table rows, and text that must not be taken for any of them."""

from collections.abc import Iterable

STRUCTURE = ("#", "|", "```", "~~~")


def heading(level: int, title: str) -> str:
    """A heading; deeper than six there is none in Markdown."""
    return f"{'#' * min(level, 6)} {' '.join(title.split())}"


def item(level: int, mark: str, text: str) -> str:
    """An item of a list, level 0 being the outermost."""
    return f"{'  ' * level}{mark} {' '.join(text.split())}"


def row(cells: Iterable[str]) -> str:
    """A row of a table, on one line."""
    return f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |"


def plain(text: str) -> str:
    """Text whose lines nothing takes for structure: those that look like some begin with a backslash."""
    return "\n".join(_escaped(" ".join(line.split())) for line in text.split("\n"))


def _escaped(line: str) -> str:
    ruled = line[:1] in ("=", "-") and len(line) >= 3 and not line.strip(line[0])
    return f"\\{line}" if line.startswith(STRUCTURE) or ruled else line
