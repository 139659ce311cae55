"""The values of the readers."""

from msgspec import Struct


class Section(Struct, frozen=True):
    """A part of a document that belongs together: characters `start` to `end` of its text.

    heading: the headings above it, such as `Guide > Install`, or the name of a function.
    """

    start: int
    end: int
    heading: str = ""


class Document(Struct, frozen=True):
    """The text of a source. sections: in order, without gaps; empty for one of the whole text."""

    source: str
    text: str
    sections: tuple[Section, ...] = ()
    title: str = ""

    @property
    def parts(self) -> tuple[Section, ...]:
        """The sections; the whole text where there are none."""
        return self.sections or (Section(0, len(self.text), self.title),)
