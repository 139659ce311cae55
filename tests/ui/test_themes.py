"""Themes: their files, what terminals with fewer colours show, and contrast as in WCAG 2."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.color import Color
from support.repl import make_repl, preset, type_in
from support.worlds import make_world

from llmchat.chat import Chat
from llmchat.engines.scripted import ScriptedEngine
from llmchat.errors import UsageError
from llmchat.history import History
from llmchat.models.opener import ModelOpener
from llmchat.output.terminal_text import colours_of
from llmchat.ui import printing, prompt_style, themes
from llmchat.ui.dimmed_section import DimmedSection
from llmchat.ui.repl import Repl
from llmchat.ui.themes.style import (
    ANSI,
    Style,
    parse_style,
    prompt_toolkit_style,
    rich_style,
    shown_with,
)

REPOSITORY = Path(__file__).parents[2]
# What is there to be overlooked: 3:1 is enough. All other colours are text: 4.5:1.
DECORATION = {
    "address", "quote_mark", "rule", "label", "comment", "thought", "tool", "note", "status",
    "menu_meta",
}  # fmt: skip
COLOURS = (0, 8, 16, 256, 2**24)
COLOUR = st.none() | st.integers(0, 255) | st.integers(0, 2**24 - 1).map("#{:06x}".format)


def written(folder: Path, **texts: str) -> Path:
    """A folder of themes."""
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.toml").write_text(text)
    return folder


# Contrast


def luminance(colour: int | str) -> float:
    exact = Color.from_ansi(colour) if isinstance(colour, int) else Color.parse(colour)
    red, green, blue = (
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4
        for part in exact.get_truecolor().normalized
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: int | str, other: int | str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


def least_contrast(role: str, theme: themes.Theme) -> float:
    if theme.background == "any":
        return 3
    if theme.name.startswith("high-contrast"):
        return 7
    return 3 if role in DECORATION else 4.5


@pytest.mark.parametrize("name", themes.names())
def test_every_colour_can_be_read_on_the_background_of_its_theme(name: str) -> None:
    theme = themes.find_theme(name)
    papers = (theme.paper,) if theme.paper else ("#ffffff", "#1e1e1e")
    for role in themes.ROLES:
        style, least = getattr(theme, role), least_contrast(role, theme)
        # The contrast of a dim colour would be unknown.
        assert not (style.dim and style.colour), role
        for paper in papers:
            if style.colour is not None:
                ground = style.background or paper
                assert contrast(style.colour, ground) >= least, role
                in_256 = shown_with(style, 256)
                assert in_256.colour is not None
                assert contrast(in_256.colour, in_256.background or paper) >= 3, role
            if style.background is not None:
                assert contrast(style.background, paper) >= 3, role


@pytest.mark.parametrize("name", themes.names())
def test_every_theme_says_what_it_is_for(name: str) -> None:
    theme = themes.find_theme(name)
    assert theme.description and (theme.background == "any") == (not theme.paper)
    if theme.paper:
        assert (luminance(theme.paper) > 0.5) == (theme.background == "light")


def test_mono_has_no_colours() -> None:
    theme = themes.find_theme("mono")
    styles = [getattr(theme, role) for role in themes.ROLES]
    assert not any(style.colour or style.background or style.dim for style in styles)


@pytest.mark.parametrize("name", themes.names())
def test_what_is_selected_differs_on_every_terminal(name: str) -> None:
    for colours in COLOURS:
        selected = themes.at_depth(themes.find_theme(name), colours).selected
        assert selected.background is not None or selected.reverse


# Styles


def test_a_style_is_words() -> None:
    palette = {"teal": 30, "red": "#ff0000"}
    assert parse_style("", palette) == Style()
    assert parse_style("bold teal", palette) == Style(colour=30, bold=True)
    assert parse_style("red on bright-blue italic", palette) == Style("#ff0000", 12, italic=True)
    assert parse_style("#AbC", {}) == Style("#aabbcc")
    assert parse_style("255", {}) == Style(255)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("blod red", "there is no colour `blod`", "did you mean `bold`"),
        ("#12345", "there is no colour `#12345`", "use #rrggbb"),
        ("256", "there is no colour `256`", "use #rrggbb"),
        ("red blue", "`red blue` has two colours", "on COLOUR"),
        ("red on", "there is no colour ``", "use #rrggbb"),
        ("tael", "there is no colour `tael`", "did you mean `teal`"),
    ],
)
def test_an_invalid_style_is_one_clear_line(text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_style(text, {"teal": 30})
    assert error.value.message == message and hint in error.value.hint


def test_a_terminal_shows_the_nearest_colour_that_it_has() -> None:
    style = parse_style("bold #008787", {})
    assert style.start == "\x1b[1;38;2;0;135;135m" and style.end == "\x1b[0m"
    assert shown_with(style, 256).start == "\x1b[1;38;5;30m"
    assert shown_with(style, 16).start == shown_with(style, 8).start == "\x1b[1;36m"
    assert shown_with(style, 0).start == "\x1b[1m"
    bright = parse_style("bright-red", {})
    assert (bright.start, shown_with(bright, 8).start) == ("\x1b[91m", "\x1b[31m")
    on = parse_style("#000000 on bright-red", {})
    assert on.start == "\x1b[38;2;0;0;0;101m"


def test_greys_never_become_the_background_of_a_terminal_with_few_colours() -> None:
    """Solarized's own 16 colours have the background in the place of bright black."""
    grey = parse_style("#777777", {})
    assert shown_with(grey, 16) == shown_with(grey, 8) == Style(dim=True)
    assert shown_with(parse_style("#fdfdfd", {}), 16) == Style()
    assert shown_with(parse_style("#111111 on #eeeeee", {}), 8) == Style(reverse=True)
    # A colour that was named is the user's own choice.
    assert shown_with(parse_style("white", {}), 16) == Style(colour=7)


@settings(deadline=None)
@given(
    st.builds(
        Style,
        COLOUR,
        COLOUR,
        bold=st.booleans(),
        dim=st.booleans(),
        underline=st.booleans(),
    ),
    st.sampled_from(COLOURS),
)
def test_no_terminal_gets_a_colour_that_it_does_not_have(style: Style, colours: int) -> None:
    shown = shown_with(style, colours)
    for colour in (shown.colour, shown.background):
        assert colour is None or colours > 256 or (isinstance(colour, int) and colour < colours)
    assert shown_with(shown, colours) == shown
    rich_style(shown)
    prompt_toolkit_style(shown)


@pytest.mark.parametrize("number", range(16))
def test_prompt_toolkit_knows_the_colours_of_the_terminal(number: int) -> None:
    from prompt_toolkit.styles import Style as PromptStyle

    assert prompt_toolkit_style(parse_style(ANSI[number], {})).startswith("fg:ansi")
    PromptStyle([("a", prompt_toolkit_style(Style(number, number)))])


@pytest.mark.parametrize(
    ("env", "colours"),
    [
        ({"TERM": "xterm-256color"}, 256),
        ({"TERM": "xterm"}, 8),
        ({"TERM": "linux"}, 8),
        ({"TERM": "xterm-16color"}, 16),
        ({"TERM": "vt220"}, 0),
        ({"TERM": "xterm", "COLORTERM": "truecolor"}, 2**24),
        ({"TERM": "xterm-256color", "COLORTERM": "24bit"}, 2**24),
        ({"TERM": "xterm-direct"}, 2**24),
        ({"TERM": "xterm", "COLORTERM": "gnome-terminal"}, 256),
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor", "NO_COLOR": "1"}, 0),
        ({"TERM": "dumb", "COLORTERM": "truecolor"}, 0),
    ],
    ids=str,
)
def test_the_terminal_declares_its_colours(
    env: dict[str, str], colours: int, tmp_path: Path
) -> None:
    world = make_world(tmp_path, tty=True, **env)
    assert colours_of(world) == colours
    assert colours_of(make_world(tmp_path, **env)) == 0
    assert prompt_style.depth_of(world) is prompt_style._DEPTHS[colours]


# Files


def test_a_theme_of_the_user_inherits_and_overrides(tmp_path: Path) -> None:
    own = written(
        tmp_path / "themes",
        mine='inherit = "dark"\nheading = "bold #ff8800"\n[palette]\ngrey = "#cccccc"\n',
        more='inherit = "mine"\nerror = 196\n',
    )
    dark, mine, more = (themes.find_theme(name, own) for name in ("dark", "mine", "more"))
    assert mine.heading == Style("#ff8800", bold=True) and mine.keyword == dark.keyword
    assert mine.note == Style("#cccccc") != dark.note
    assert (mine.background, mine.paper, mine.description) == ("dark", "#1e1e1e", "")
    assert more.heading == mine.heading and more.error == Style(196)
    assert "more" in themes.names(own) and themes.names(own)[0] == "auto"


def test_a_theme_without_a_parent_has_the_default_one(tmp_path: Path) -> None:
    own = written(tmp_path / "themes", mine='error = "red"\n')
    assert themes.find_theme("mine", own).heading == themes.find_theme("auto").heading


def test_a_theme_may_change_one_of_llmchat_that_has_its_name(tmp_path: Path) -> None:
    own = written(tmp_path / "themes", dark='inherit = "dark"\nerror = "red"\n', auto="code = 99\n")
    assert themes.find_theme("dark", own).error == Style(1)
    assert themes.find_theme("dark", own).keyword == themes.find_theme("dark").keyword
    assert themes.find_theme("auto", own).code == Style(99)
    assert themes.find_theme("nord", own) == themes.find_theme("nord")


def test_a_long_chain_of_ancestors_is_refused(tmp_path: Path) -> None:
    chain = {f"t{number}": f'inherit = "t{number - 1}"\n' for number in range(1, 1200)}
    own = written(tmp_path / "themes", t0="", **chain)
    assert themes.find_theme("t10", own)
    with pytest.raises(UsageError, match=r"t1199.toml: the theme has more than 16 ancestors"):
        themes.find_theme("t1199", own)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('heding = "bold"', "there is no key `heding` in a theme", "did you mean `heading`"),
        ('heading = "bold tael"', "`heading`: there is no colour `tael`", "did you mean `teal`"),
        ('[palette]\nx = "#12"', "`palette.x`: there is no colour `#12`", "#rrggbb"),
        ("palette = 3", "`palette` is not a table of colours", ""),
        ("[palette]\nx = [1]", "`palette.x` is not a colour", ""),
        ("heading = [1]", "`heading` is not a string", ""),
        ('background = "drak"', "`background` must be light, dark or any, not `drak`", ""),
        ('paper = "30"', "`paper` must be a colour such as #1e1e1e, not `30`", ""),
        ('paper = "whiet"', "`paper`: there is no colour `whiet`", "did you mean `white`"),
        ('inherit = "drk"', "`inherit`: there is no theme `drk`", "did you mean `dark`"),
        ('inherit = "other"', "in a circle: `mine` → `other` → `mine`", ""),
        ('inherit = "mine"', "in a circle: `mine` → `mine`", ""),
        ("heading = ", "is not valid TOML", ""),
    ],
)
def test_an_invalid_theme_is_one_clear_line(
    text: str, message: str, hint: str, tmp_path: Path
) -> None:
    own = written(tmp_path / "themes", mine=text, other='inherit = "mine"\n')
    with pytest.raises(UsageError) as error:
        themes.find_theme("mine", own)
    assert "mine.toml" in error.value.message and message in error.value.message
    assert hint in error.value.hint and "\n" not in error.value.message


def test_an_unknown_theme_lists_the_valid_ones() -> None:
    with pytest.raises(UsageError) as error:
        themes.find_theme("help")
    assert error.value.message == "there is no theme `help`"
    assert all(name in error.value.hint for name in themes.names())


# In use


def test_lines_of_the_program_have_the_styles_of_the_theme(tmp_path: Path) -> None:
    world = make_world(tmp_path, tty=True, TERM="xterm", COLORTERM="truecolor")
    themes.use(world, "dracula")
    printing.print_note(world, "a note", 80)
    printing.print_tool_line(world, "a tool", 80)
    section = DimmedSection(world)
    section.feed("thinking", "so")
    shown = world.stdout.getvalue()  # type: ignore[attr-defined]
    grey = "38;2;111;127;179m"
    assert shown.startswith(f"\x1b[{grey}a note\x1b[0m\n\x1b[{grey}a tool")
    assert f"\x1b[3;{grey}so" in shown


def test_the_theme_of_the_settings_applies_until_another_is_used(tmp_path: Path) -> None:
    world = make_world(tmp_path, tty=True, TERM="xterm-256color", LLMCHAT_THEME="nord")
    assert themes.current(world).name == "nord"
    themes.use(world, "light")
    assert themes.current(world).name == themes.current(world.in_offline_mode()).name == "light"
    broken = make_world(tmp_path, tty=True, TERM="xterm-256color", LLMCHAT_THEME="none")
    assert themes.current(broken).name == "auto"
    assert themes.current(make_world(tmp_path, tty=True, TERM="dumb")) is themes.PLAIN


def test_the_command_lists_themes_and_switches_with_a_sample(tmp_path: Path) -> None:
    repl = make_repl(tmp_path)
    world = repl.state.world
    written(world.own_themes, mine="code = 1\n", bad="cod = 1\n")
    listed = type_in(repl, "/theme")
    assert "* auto" not in listed and "solarized-dark" in listed
    assert "invalid: " in listed and "there is no key `cod` in a theme" in listed
    shown = type_in(repl, "/theme mine")
    assert world.screen.theme == "mine"
    for part in ("A heading", "def area", "https://example.org", "a quote", "Mars", "error: an e"):
        assert part in shown
    assert "this terminal shows no colours" in shown and "config set theme mine" in shown
    assert "error: there is no theme `drcula`" in (wrong := type_in(repl, "/theme drcula"))
    assert "did you mean `dracula`?" in wrong and world.screen.theme == "mine"


def test_the_next_answer_has_the_colours_of_the_new_theme(tmp_path: Path) -> None:
    world = make_world(tmp_path, tty=True, TERM="xterm-256color")
    engine = ScriptedEngine(["Type `ls` now.", "Type `ls` again."])
    repl = Repl(Chat(preset(), engine, History(None)), world, ModelOpener(world, {}))
    assert "\x1b[38;5;30mls" in type_in(repl, "one")
    type_in(repl, "/theme dracula")
    assert "\x1b[38;5;84mls" in type_in(repl, "two")


def test_the_documentation_lists_every_key_and_theme() -> None:
    page = (REPOSITORY / "docs" / "themes.md").read_text("utf-8")
    for key in (*themes.ROLES, *themes.names(), "description", "background", "paper", "inherit"):
        assert f"`{key}`" in page
