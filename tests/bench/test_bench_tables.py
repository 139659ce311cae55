"""benchmarks/tables.py: README.md and docs/bench.md show what was measured."""

import json
from pathlib import Path
from typing import Any

import pytest
import tables


@pytest.mark.parametrize("name", tables.PAGES)
def test_page_shows_the_stored_results(name: str) -> None:
    page = (tables.ROOT / name).read_text("utf-8")
    assert "<!-- /" in page
    assert tables.written(page) == page, "run python benchmarks/tables.py"


def test_table_is_replaced_and_the_text_around_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tables.TABLES, "speed", lambda: "| new |")
    page = "before\n<!-- speed -->\n| old |\n<!-- /speed -->\nafter\n"
    assert tables.written(page) == "before\n<!-- speed -->\n| new |\n<!-- /speed -->\nafter\n"
    with pytest.raises(ValueError, match="no table is called other"):
        tables.written("<!-- other -->\n<!-- /other -->\n")


def test_compiled_llama_cpp_is_named_with_its_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = {"llmchat int8": {"decode": 200.0, "prefill": 9.5}, "llama.cpp Q8_0": {"decode": 250.0}}
    measured = {"rates": rates, "llama_cpp_build": "AVX2 AVX512"}
    versions = {"llmchat": "0.1.0", "llama-cpp-python": "0.3.36", "ctranslate2": "4.8.5"}
    engine: dict[str, Any] = {
        "versions": versions, "date": "2026-11-26", "rows": [],
        "rates": {"smol": measured, "1b": measured},
    }  # fmt: skip
    streams = {"streams": 16, "many_tps": [900.0, 1000.0, 1100.0]}
    (tmp_path / "engine.json").write_text(json.dumps(engine))
    (tmp_path / "serve.json").write_text(json.dumps({"streams": streams}))
    monkeypatch.setattr("families.RESULTS", tmp_path)
    speed = tables.speed()
    assert "| decode, 1.1B | 200 | **250** | – |\n" in speed
    assert "| prefill, 1.1B | **9.5** | – | – |\n" in speed
    assert "| 16 clients, 135M | **1,000** | – | – |\n" in speed
    assert "llama-cpp-python 0.3.36, compiled for this processor (Q8_0)" in speed
    assert "wheel" not in speed and "26 November 2026" in speed
    assert tables.engine().endswith("llama.cpp was built with AVX2 AVX512.")
