"""Read the bytes of a file, up to a limit."""

from pathlib import Path

from llmchat.errors import UsageError

# Most bytes of one file; a book has about one million.
MOST_BYTES = 64_000_000


def file_bytes(path: Path, name: str) -> bytes:
    """The content of a plain file. Raises UsageError for one that is too large or unreadable."""
    try:
        if not path.is_file():
            raise UsageError(f"{name} is not a plain file")
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise UsageError(
                f"{name} is too large ({size / 1e6:,.0f} MB); the limit is 64 MB",
                "split it into parts, for example with `split -C 50M`",
            )
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}") from error
