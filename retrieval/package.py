"""Zip packages, which office documents and e-books are: opened only when their content is of a size to be read.

All bounds are checked from the table of contents, before anything is unpacked; zipfile unpacks no more of
a member than that says. It knows what XML may hold, and nothing of what it means.
"""

import io
import re
import zipfile
import zlib

from trackbed.retrieval.errors import FormatError
from trackbed.retrieval.markup import parsed
from trackbed.retrieval.text import OLE, decode, looks_like

MAX_MEMBERS = 20_000
MAX_UNPACKED = 512 * 2**20  # bytes of all members, pictures too
MAX_XML = 128 * 2**20  # bytes of the members that are parsed
ENTRY = b"PK\x01\x02"  # begins each entry of the table of contents
ENCRYPTED = "EncryptedPackage".encode("utf-16-le")  # the stream that an encrypted office document is in
ENCODING = re.compile(rb"""^<\?xml[^>]{0,200}?encoding\s{0,9}=\s{0,9}["']([^"']{0,40})["']""")
KNOWN_ENCODINGS = {b"utf-8", b"utf-16", b"us-ascii", b"ascii", b"iso-8859-1", b"windows-1252"}


def open_package(data: bytes, holds: str) -> zipfile.ZipFile:
    """The package, whose member `holds` is there. Raises FormatError for what is no such package, or too large."""
    if data.startswith(OLE):
        if ENCRYPTED in data:
            raise FormatError("encrypted with a password")
        raise FormatError("in the old binary format (.doc, .xls, .ppt), or encrypted; save it in the new one")
    if not data.startswith(b"PK"):
        looks = looks_like(data)
        raise FormatError(f"no zip package{looks and f': it begins like {looks}'}")
    if data.count(ENTRY) > MAX_MEMBERS:
        raise FormatError(f"a package of more than {MAX_MEMBERS} members")
    try:
        package = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, OSError) as error:
        raise FormatError(f"a broken zip package ({error})") from error
    members = package.infolist()
    if (unpacked := sum(member.file_size for member in members)) > MAX_UNPACKED:
        raise FormatError(f"a package that unpacks to {unpacked} bytes, and at most {MAX_UNPACKED} are read")
    if any(member.flag_bits & 1 for member in members):
        raise FormatError("encrypted with a password")
    if len({member.filename for member in members}) < len(members):
        raise FormatError("a package with two members of one name")
    if holds not in package.namelist():
        raise FormatError(f"a zip package without {holds}, which its kind has")
    return package


def unpacked(package: zipfile.ZipFile, name: str) -> bytes:
    """The content of a member. Raises FormatError for one that is not there, or broken."""
    try:
        member = package.getinfo(name)
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FormatError(f"packed in a way that its kind never is, in {name!r}")
        return package.read(member)
    except KeyError:
        raise FormatError(f"a package without its member {name!r}") from None
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, OSError, zlib.error) as error:
        raise FormatError(f"a broken zip package, in {name!r}") from error


def check_xml(package: zipfile.ZipFile) -> None:
    """Raise FormatError where XML declares entities, which unfold without bound, or is too large to be parsed.

    Office documents never declare any, and are in UTF-8 or UTF-16.
    """
    members = [member for member in package.infolist() if member.filename.lower().endswith((".xml", ".rels", ".vml"))]
    if (size := sum(member.file_size for member in members)) > MAX_XML:
        raise FormatError(f"a document of {size} bytes of XML, and at most {MAX_XML} are read; split it")
    for member in members:
        content = unpacked(package, member.filename)
        head = content[:400].replace(b"\0", b"")  # UTF-16 reads like ASCII then, as far as it matters here
        encoding = ENCODING.match(
            head.removeprefix(b"\xef\xbb\xbf").removeprefix(b"\xff\xfe").removeprefix(b"\xfe\xff")
        )
        if encoding and encoding[1].lower() not in KNOWN_ENCODINGS:
            raise FormatError(f"XML in an encoding that its kind never has, in {member.filename!r}")
        plain = content.replace(b"\0", b"") if b"\0" in content else content
        if b"<!DOCTYPE" in plain or b"<!ENTITY" in plain:
            raise FormatError(f"XML with a document type declaration, which its kind never has, in {member.filename!r}")


def properties(package: zipfile.ZipFile) -> dict[str, str]:
    """What an office document says of itself: title, author, dates and the like."""
    if CORE not in package.namelist():
        return {}
    soup = parsed(decode(unpacked(package, CORE)[: 2**16]))
    found = {name: soup.find(tag) for tag, name in PROPERTIES.items()}
    said = {name: " ".join(tag.get_text().split()) for name, tag in found.items() if tag}
    return {name: value for name, value in said.items() if value}


CORE = "docProps/core.xml"
PROPERTIES = {
    "dc:title": "title",
    "dc:creator": "author",
    "dcterms:created": "created",
    "dcterms:modified": "modified",
    "dc:subject": "subject",
    "cp:keywords": "keywords",
    "dc:language": "language",
}
