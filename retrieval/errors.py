"""What can go wrong between documents and passages."""


class RetrievalError(Exception):
    """Retrieval could not do its work; the message says what was found and what to do."""


class IndexMissing(RetrievalError):
    """There is no index at that path; the message gives the command that builds one."""


class IndexMismatch(RetrievalError):
    """The index was built with another embedder, or in another format, than the one in use."""


class DocumentUnreadable(RetrievalError):
    """A file is broken, encrypted, empty or of a kind that is not read; the message names it."""

    def __init__(self, message: str, source: str = "") -> None:
        super().__init__(message)
        self.source = source  # of the document that it would be; empty where it is none, such as a folder


class FormatError(RetrievalError):
    """What is wrong with a file's content, told by a reader that does not know the file's name."""
