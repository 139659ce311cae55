"""`llmchat chat -f`: folders, PDFs, and what does not fit the window."""

import json
from pathlib import Path

from support.office_files import pdf, word
from support.scripted_chats import run_chat


def chat(home: Path, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    return run_chat(home, *arguments, stdin=stdin, format="alpaca")


def long_text() -> str:
    lines = [f"Line {n}: nothing happens here today.\n\n" for n in range(500)]
    lines[321] += "The captain hid the golden compass under the stairs.\n\n"
    return "".join(lines)


def test_a_folder_is_sent_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("alpha")
    (tmp_path / "notes" / "b.txt").write_text("bravo")
    code, answer, _ = chat(tmp_path, "-f", str(tmp_path / "notes"), "--json", "What is it?")
    rows = json.loads(answer)["window"]["ledger"]
    files = [row["start"] for row in rows if row["role"] == "file"]
    assert code == 0 and files == [f"{tmp_path}/notes/{name}.txt" for name in "ab"]
    assert f"{tmp_path}/notes/a.txt:\n> alpha" in json.loads(answer)["text"]


def test_the_text_of_a_pdf_and_of_a_word_file_is_sent(tmp_path: Path) -> None:
    (tmp_path / "report.pdf").write_bytes(pdf("Sales rose in May."))
    (tmp_path / "plan.docx").write_bytes(word(("Normal", "We meet on Monday.")))
    files = ("-f", str(tmp_path / "report.pdf"), "-f", str(tmp_path / "plan.docx"))
    code, answer, _ = chat(tmp_path, *files, "--json", "What is it?")
    sent = json.loads(answer)["text"]
    assert code == 0 and "> Sales rose in May." in sent and "> We meet on Monday." in sent


def test_a_broken_pdf_is_one_line_and_nothing_is_sent(tmp_path: Path) -> None:
    (tmp_path / "report.pdf").write_bytes(pdf("Sales rose in May.")[:200])
    code, answer, notes = chat(tmp_path, "-f", str(tmp_path / "report.pdf"), "What is it?")
    assert code == 2 and not answer and "report.pdf" in notes.splitlines()[0]


def test_a_long_file_is_searched_and_its_passages_are_sources(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text(long_text())
    code, answer, notes = chat(tmp_path, "-f", str(path), "--json", "Where is the golden compass?")
    sources = json.loads(answer)["sources"]
    assert code == 0 and "does not fit the window: it is searched" in notes
    assert sources[0]["source"] == str(path)
    assert "under the stairs" in sources[0]["text"]
    assert long_text()[sources[0]["start"] : sources[0]["end"]] == sources[0]["text"]


def test_without_an_embedder_the_note_says_how_to_search_by_meaning(tmp_path: Path) -> None:
    notes = chat(tmp_path, "Where is the compass?", "-f", "-", stdin="")[2]
    assert notes == ""
    notes = chat(tmp_path, "Where is the golden compass?", stdin=long_text())[2]
    assert "searching by words alone" in notes and "llmchat pull" in notes
    assert "[1] stdin (characters " in notes


def test_no_log_leaves_no_index(tmp_path: Path) -> None:
    code, answer, _ = chat(tmp_path, "-n", "Where is the golden compass?", stdin=long_text())
    assert code == 0 and "under the stairs" in answer
    assert not list(tmp_path.rglob("*.sqlite"))
