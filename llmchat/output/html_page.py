"""Fill HTML templates stored next to the code: self-contained pages with all text escaped."""

from pathlib import Path


def fill(template: Path, **values: object) -> str:
    """Render a Jinja template with autoescape.

    Values from outside become text; only `markupsafe.Markup` passes as HTML. Raises jinja2's
    UndefinedError for a name that has no value.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template.name).render(values)
