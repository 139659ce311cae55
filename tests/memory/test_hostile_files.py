"""PDF, Word and HTML files are read in a process with limits; a bad file gets one clear line."""

import io
import zipfile
from collections.abc import Iterator

import pytest
from pypdf import PdfReader, PdfWriter
from support.office_files import pdf, word

from llmchat.errors import UsageError
from llmchat.memory.readers import child, read_document


@pytest.fixture(scope="module", autouse=True)
def no_process_stays() -> Iterator[None]:
    yield
    child._stop()


def test_a_pdf_has_a_section_for_each_page() -> None:
    document = read_document(pdf("one fish", "two fish", title="Fish"), "a.pdf")
    assert document.text == "one fish\n\ntwo fish\n\n" and document.title == "Fish"
    assert [one.heading for one in document.sections] == ["page 1", "page 2"]


def test_a_word_document_has_headings_lists_and_tables() -> None:
    data = word(
        ("Title", "Guide"), ("Heading 2", "Install"), ("List Bullet", "one"), ("Normal", "x")
    )
    document = read_document(data, "a.docx")
    assert document.text == "# Guide\n\n## Install\n\n- one\n\nx\n\n| left | right |"
    assert [one.heading for one in document.sections] == ["Guide", "Guide > Install"]


def test_an_html_page_is_its_main_text() -> None:
    page = "<html><head><title>Cats</title></head><body><nav>Home | About</nav><main><h1>Cats</h1>"
    page += "<p>" + "Cats purr. " * 40 + "</p><h2>Food</h2><p>They eat fish.</p></main></body>"
    document = read_document(page.encode(), "a.html")
    assert document.title == "Cats" and "About" not in document.text
    assert "Cats > Food" in [one.heading for one in document.sections]


def zip_bomb() -> bytes:
    """A Word document whose text unpacks to 3 GB."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(word(("Normal", "x")))) as source,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bomb,
    ):
        for name in source.namelist():
            if name != "word/document.xml":
                bomb.writestr(name, source.read(name))
        with bomb.open("word/document.xml", "w", force_zip64=True) as file:
            for _ in range(3000):
                file.write(b" " * 1_000_000)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.pdf", pdf("x", password="secret"), "a.pdf is encrypted"),
        ("a.pdf", pdf("one fish")[:300], "a.pdf cannot be read: it is damaged"),
        ("a.pdf", b"not a PDF", "a.pdf cannot be read: it is damaged"),
        ("a.pdf", pdf(""), "a.pdf has no text; it may be a scan"),
        ("a.docx", b"PK not a zip", "a.docx cannot be read: it is damaged"),
        ("a.docx", b"\xd0\xcf\x11\xe0" + bytes(600), "a.docx is encrypted, or in the old"),
        ("a.html", b"", "a.html has no text"),
    ],
)
def test_a_bad_file_is_one_clear_line(name: str, data: bytes, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_document(data, name)
    assert caught.value.message.startswith(message) and "\n" not in caught.value.message


@pytest.mark.slow
def test_a_bomb_ends_at_the_limit_of_memory() -> None:
    with pytest.raises(UsageError, match="too much"):
        read_document(zip_bomb(), "a.docx")
    assert read_document(pdf("fish"), "a.pdf").text == "fish\n\n"


def test_a_reader_that_dies_is_replaced() -> None:
    read_document(pdf("fish"), "a.pdf")
    assert child._PROCESS is not None
    child._PROCESS.kill()
    child._PROCESS.wait()
    assert read_document(pdf("fish"), "a.pdf").text == "fish\n\n"


def test_an_encrypted_pdf_without_a_password_is_read() -> None:
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf("fish"))))
    writer.encrypt("", owner_password="owner", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    assert read_document(out.getvalue(), "a.pdf").text == "fish\n\n"
