"""Write counts, sizes and durations for people: `1 chat`, `2,000 chats`, `13.5 GB`, `2 min`.

Our own functions rather than humanize's: its sizes read `443 Bytes`, its durations `2 minutes` or
`an hour`, and nothing else of that library would be used.
"""

_UNITS = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def counted(count: int, noun: str, plural: str = "") -> str:
    """`plural` is the form for all counts but 1; without one an `s` is appended."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def byte_count(count: float, decimals: int = 1) -> str:
    """A number of bytes in decimal units: `443 bytes`, `67.2 MB`, `13.5 GB`.

    decimals: those of kB and MB; GB and TB always have one.
    """
    for unit, factor in _UNITS:
        if count >= factor:
            digits = 1 if factor >= 1e9 else decimals
            return f"{count / factor:.{digits}f} {unit}"
    return counted(round(count), "byte")


def duration(seconds: float) -> str:
    """A rough duration: `12 s`, `25 min`, `1.5 h`; at least one second."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
