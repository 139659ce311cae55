"""Markdown on the page: formulas, highlighting, footnotes, task lists, and attacks on each."""

import json
import threading
from typing import Any

import pytest
from support.page_browser import Site, User, expect

pytestmark = pytest.mark.slow

MATHML = "http://www.w3.org/1998/Math/MathML"
RENDERED = """(text) => import('./page/markdown.js').then(({render}) => {
    const unique = (values) => [...new Set(values)];
    const place = document.createElement('div');
    place.className = 'markdown';
    document.querySelector('#messages').replaceChildren(place);
    render(place, text);
    const all = [...place.querySelectorAll('*')];
    return {
        text: place.textContent.trim(),
        formulas: [...place.querySelectorAll('math')].map((one) => one.parentNode.title),
        display: place.querySelectorAll('math[display=block]').length,
        html: place.innerHTML,
        elements: unique(all.filter((one) => !one.closest('math')).map((one) => one.localName)),
        inMath: unique(all.filter((one) => one.closest('math')).map((one) => one.namespaceURI)),
        attributes: unique(all.flatMap((one) => one.getAttributeNames())),
        links: [...place.querySelectorAll('[href]')].map((one) => one.getAttribute('href')),
    };
})"""


def rendered(user: User, text: str) -> dict[str, Any]:
    value: dict[str, Any] = user.page.evaluate(RENDERED, text)
    return value


FORMULAS = {
    r"Euler: $e^{i\pi} + 1 = 0$.": [r"e^{i\pi} + 1 = 0"],
    r"\(a_1 * b_1\) and \(a_2 * b_2\)": ["a_1 * b_1", "a_2 * b_2"],
    r"$$\sum_{i=1}^n i^2$$": [r"\sum_{i=1}^n i^2"],
    "So:\n\\[\n\\frac{a}{b} = \\sqrt{2}\n\\]\nand on": [r"\frac{a}{b} = \sqrt{2}"],
    "$$\n\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}\n$$": [
        r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"
    ],
    "1. first\n\n   $$x < y$$\n\n2. second $x > z$": ["x < y", "x > z"],
    "**$x_1$** in $[0, 1]$": ["x_1", "[0, 1]"],
    "$5$ of $10x$": ["5", "10x"],
    r"the price is \$5, $n$ times": ["n"],
}
NO_FORMULAS = [
    "It costs $5 and $6.",
    "$5 to $6, US$7 or US$8",
    "between $20,000 and $30,000",
    "**$5** or 6$ each, 7$ at most",
    "`$x$` and ``\\(y\\)``",
    "```\n$$x$$\n\\[y\\]\n```",
    "PATH=$HOME/bin:$PATH",
    "$ x$ and $x $",
    "\\$x\\$",
]


def test_formulas_become_mathml(site: Site) -> None:
    user = site.visit()
    for text, formulas in FORMULAS.items():
        shown = rendered(user, text)
        assert shown["formulas"] == formulas, text
        assert shown["inMath"] == [MATHML], text
        assert "$" not in shown["text"].replace("$5", "") and "\\(" not in shown["text"], text
    assert rendered(user, r"$$a$$")["display"] == 1 and rendered(user, r"$a$")["display"] == 0


def test_money_code_and_variables_are_not_formulas(site: Site) -> None:
    user = site.visit()
    for text in NO_FORMULAS:
        shown = rendered(user, text)
        assert shown["formulas"] == [], text
        assert shown["text"].count("$") == text.count("$"), text


def test_invalid_formulas_stay_as_text(site: Site) -> None:
    user = site.visit()
    for text in (
        r"$\notacommand{x}$",
        r"\(\frac{1}\)",
        r"$$\begin{matrix} 1$$",
        "$" + "{" * 900 + "x" + "}" * 90 + "$",
    ):
        shown = rendered(user, text)
        assert shown["formulas"] == [] and shown["text"] == text


def test_an_unfinished_formula_is_not_garbled(site: Site) -> None:
    gate = threading.Event()
    site.script.answers.append(["So:\n\n\\[\n\\sum_{i=1} a_i * b_", gate, "i * c_i\n\\]\n\nDone."])
    user = site.visit()
    user.send("Hello")
    expect(user.answer).to_contain_text("\\sum_{i=1} a_i * b_")
    gate.set()
    expect(user.find("math")).to_have_count(1)
    expect(user.answer).to_contain_text("Done.")


def test_code_is_highlighted_in_both_themes(site: Site) -> None:
    site.script.answers.append(
        ['```python\ndef one():\n    return "text"  # why\n```\n\n```nosuchlanguage\ndef one\n```']
    )
    user = site.visit(color_scheme="light")
    user.ask("Hello")
    expect(user.find(".hljs-keyword")).to_have_text(["def", "return"])
    colour = "(name) => getComputedStyle(document.querySelector(name)).color"
    light = [
        user.page.evaluate(colour, name)
        for name in (".hljs-keyword", ".hljs-string", ".hljs-comment")
    ]
    user.page.emulate_media(color_scheme="dark")
    dark = [
        user.page.evaluate(colour, name)
        for name in (".hljs-keyword", ".hljs-string", ".hljs-comment")
    ]
    assert len({*light, *dark}) == 6
    assert user.find(".markdown code").all_inner_texts() == [
        'def one():\n    return "text"  # why\n',
        "def one\n",
    ]


def test_growing_code_is_redrawn_in_place(site: Site) -> None:
    gate = threading.Event()
    site.script.answers.append(["```js\nconst one = 1;\n", gate, "const two = 2;\n```\n"])
    user = site.visit()
    user.send("Hello")
    expect(user.find(".hljs-keyword")).to_have_count(1)
    user.page.evaluate("document.querySelector('pre').mark = 1")
    gate.set()
    expect(user.find(".hljs-keyword")).to_have_count(2)
    user.settled()
    assert user.page.evaluate("document.querySelector('pre').mark") == 1


def test_footnotes_link_there_and_back(site: Site) -> None:
    site.script.answers.append(
        ["True[^a], and more[^long note][^b]. Not[^none].\n\n[^a]: See *here*.\n[^b]: And `there`."]
    )
    user = site.visit()
    user.ask("Hello")
    expect(user.answer).to_contain_text("True1, and more[^long note]2. Not[^none].")
    expect(user.find(".footnote")).to_have_text(["1 See here.", "2 And there."])
    before = user.page.url
    user.button("Footnote 2").click()
    expect(user.button("Back to the text of footnote 2")).to_be_focused()
    user.page.keyboard.press("Enter")
    expect(user.button("Footnote 2")).to_be_focused()
    assert user.page.url == before


def test_task_checkboxes_have_names(site: Site) -> None:
    site.script.answers.append(["- [x] buy **milk**\n- [ ] bake\n  - [ ] knead"])
    user = site.visit()
    user.ask("Hello")
    boxes = user.answer.get_by_role("checkbox")
    expect(boxes).to_have_count(3)
    expect(user.answer.get_by_role("checkbox", name="buy milk")).to_be_checked()
    expect(user.answer.get_by_role("checkbox", name="knead")).to_be_disabled()


HACK = "<img src=x onerror=window.hacked=1>"
ATTACKS = [
    rf"$\text{{{HACK}}}$", rf"$${HACK}$$", rf"\({HACK}\)", rf"\[{HACK}\]",
    r"$\href{javascript:window.hacked=1}{x}$", r"$\url{javascript:window.hacked=1}$",
    r"$\href{https://evil.example}{x}$",
    r"$\includegraphics{https://evil.example/x.png}$", r"$\class{hljs}{x}$", r"$\id{input}{x}$",
    r"$\style{background:url(//evil.example)}{x}$",
    r"$\data{onclick=window.hacked=1}{x}$", r"$\htmlClass{x}{y}$", r"$$\label{input} x \tag{1}$$",
    r"$\ref{input}$", r"$\eqref{send}$",
    r"$\color{red;background:url(//evil.example)}x$", r"$\colorbox{url(//evil.example)}{x}$",
    r"$\textcolor{\"><script>}{x}$",
    r"$\def\x{\x\x}\x$", r"$\unicode{x3c}script\unicode{x3e}$",
    "$" + r"\sqrt{" * 150 + "x" + "}" * 150 + "$",
    r"$\begin{array}{onclick=window.hacked=1}x\end{array}$", r"$\rule{1000000em}{1000000em}$",
    r"$\mathrm{</span><script>window.hacked=1</script>}$",
    f"```html\n{HACK}</code></pre><script>window.hacked=1</script>\n```",
    f"```js\"onmouseover=window.hacked=1\n{HACK}\n```",
    f"```js\nconst a = `</span>{HACK}`;\n```",
    "```xml\n<span class=\"hljs-x\"><img src=x onerror=window.hacked=1></span>\n```",
    "```js hljs-copy\n&lt;img src=x onerror=window.hacked=1&gt;\n```", "```constructor\nx\n```",
    "```__proto__\nx\n```",
    f"x[^{HACK}]\n\n[^{HACK}]: {HACK}", "x[^a]\n\n[^a]: [y](javascript:window.hacked=1)",
    "x[^__proto__][^constructor]\n\n[^__proto__]: y",
    "x[^\"onclick=window.hacked=1]\n\n[^\"onclick=window.hacked=1]: y",
    f"- [ ] {HACK}\n- [x] \"onfocus=window.hacked=1",
    "- [ ] <input autofocus onfocus=window.hacked=1>",
    '<span class="math-inline">\\href{javascript:window.hacked=1}{x}</span>',
    '<span class="footnote-label" onclick=window.hacked=1>x</span>',
    "<math href=javascript:window.hacked=1><mtext><script>window.hacked=1</script></mtext></math>",
    f"| $a$ | {HACK} |\n|---|---|\n| $<b>$ | \\({HACK}\\) |",
]  # fmt: skip
ELEMENTS = {
    "div", "p", "span", "a", "br", "pre", "code", "button", "sup", "ul", "li", "input", "table",
    "thead", "tbody", "tr", "th", "td", "math", "b",
}  # fmt: skip


def test_attacks_in_formulas_code_and_footnotes_are_inert(site: Site) -> None:
    user = site.visit()
    for attack in ATTACKS:
        shown = rendered(user, attack)
        assert set(shown["elements"]) <= ELEMENTS, attack
        assert set(shown["inMath"]) <= {MATHML}, attack
        assert not [
            name
            for name in shown["attributes"]
            if name.startswith("on") or name in ("id", "src", "srcset", "name")
        ], attack
        assert not [
            link for link in shown["links"] if not link.startswith(("http://", "https://"))
        ], attack
        assert "evil.example" not in user.page.evaluate(
            "[...document.querySelectorAll('.markdown [style]')]"
            ".map((one) => one.style.cssText).join()"
        )
    user.page.evaluate(
        "document.querySelectorAll('.markdown *')"
        ".forEach((one) => one.dispatchEvent(new MouseEvent('click')))"
    )
    assert user.page.evaluate("window.hacked") is None


TITLE = f"{HACK}<svg onload=window.hacked=1>"


def test_attacks_in_titles_and_file_names_are_inert(site: Site) -> None:
    user = site.visit()
    user.ask(TITLE)
    assert user.titles == [TITLE[:59] + "…" if len(TITLE) > 60 else TITLE]
    bad = {
        "llmchat": "conversations",
        "conversations": [{"format": 1, "title": TITLE, "messages": {}}, {"format": HACK}],
    }
    with user.page.expect_file_chooser() as chooser:
        user.button("Import").click()
    chooser.value.set_files(
        {"name": f"{HACK}.json", "mimeType": "text/html", "buffer": json.dumps(bad).encode()}
    )
    expect(user.find(".notice.problem")).to_contain_text("Import failed")
    assert user.find("img, main svg[onload]").count() == 0
    assert user.page.evaluate("window.hacked") is None
