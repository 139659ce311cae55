"""A progress display of rich with a plot above its line."""

from collections.abc import Iterable

from rich.console import RenderableType
from rich.progress import Progress
from rich.text import Text


class WithPlot(Progress):
    """Shows `above`, which may have styles, over the progress of the tasks."""

    above = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        if self.above:
            yield Text.from_ansi(self.above, no_wrap=True)
        yield from super().get_renderables()
