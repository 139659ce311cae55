#!/usr/bin/env python3
"""Does a model answer more questions with the documents beside them?

    python benchmarks/retrieval_answers.py MODEL INDEX --save

Asks MODEL the 40 questions of data/retrieval that have a pattern of a right answer, each in a chat
of its own with greedy decoding: alone, and as `--docs INDEX` does. INDEX: a file that
benchmarks/retrieval.py made, in WORK/all/indexes. An answer is right if it contains the pattern.
A run that is repeated goes on where the last one stopped (ANSWERS, beside the index).

--save writes the counts to benchmarks/results/retrieval.json.
"""

import argparse
import datetime
import json
import re
from pathlib import Path
from typing import Any

import retrieval_questions
from msgspec import Struct
from msgspec import json as fast
from retrieval import RESULTS
from retrieval_questions import Question

from llmchat.attachments.docs_question import with_documents
from llmchat.attachments.documents import Documents
from llmchat.chat import Chat
from llmchat.conversation import Message
from llmchat.engines import Chunk, Sampling
from llmchat.history import History
from llmchat.memory.index import Index
from llmchat.models.open_model import OpenModel
from llmchat.models.opener import ModelOpener
from llmchat.settings import World

MAX_TOKENS = 80
SYSTEM = (
    "You answer questions about Python's standard library and the Linux command line. Answer in one"
    " or two short sentences, and name the exact function, command or option."
)


class Answered(Struct, frozen=True):
    """One answer. found: whether the passages hold the text that answers the question."""

    ask: str
    docs: bool
    text: str
    right: bool
    passages: int = 0
    found: bool = False


def answered(opened: OpenModel, question: Question, documents: Documents | None) -> Answered:
    """The answer of a new chat to one question."""
    sampling = Sampling(temperature=0, max_tokens=MAX_TOKENS)
    with History(None) as history:
        chat = Chat(opened.preset, opened.engine, history, sampling)
        chat.instruct(SYSTEM)
        message = Message("user", question.ask)
        if documents:
            message = with_documents(chat, message, documents)
        text = "".join(event.text for event in chat.ask(message) if isinstance(event, Chunk))
    return Answered(
        question.ask,
        documents is not None,
        text,
        bool(re.search(question.answer, text, re.IGNORECASE)),
        len(message.passages),
        _holds(message, question),
    )


def _holds(message: Message, question: Question) -> bool:
    """Whether a passage of the right document has the anchor, whatever spaces it has."""
    return " ".join(question.anchor.split()) in " ".join(message.input.split())


def asked_all(opened: OpenModel, documents: Documents, kept: Path) -> list[Answered]:
    """Every question without and with the documents; what is in `kept` is not asked again."""
    lines = kept.read_bytes().splitlines() if kept.exists() else []
    done = [fast.decode(line, type=Answered) for line in lines]
    known = {(one.ask, one.docs) for one in done}
    questions = [one for one in retrieval_questions.load().question if one.answer]
    for question in questions:
        for given in (None, documents):
            if (question.ask, given is not None) not in known:
                done.append(answered(opened, question, given))
                with kept.open("ab") as file:
                    file.write(fast.encode(done[-1]) + b"\n")
                print(done[-1], flush=True)
    return done


def summary(model: str, done: list[Answered]) -> dict[str, Any]:
    """The counts of right answers, and of those whose passages hold the answer."""
    alone, beside = ([one for one in done if one.docs is docs] for docs in (False, True))
    return {
        "date": datetime.date.today().isoformat(),
        "model": model,
        "questions": len(alone),
        "right_alone": sum(one.right for one in alone),
        "right_with_docs": sum(one.right for one in beside),
        "found": sum(one.found for one in beside),
        "right_where_found": sum(one.right for one in beside if one.found),
        "right_alone_where_found": sum(
            one.right for one in alone if one.ask in {two.ask for two in beside if two.found}
        ),
        "without_passages": sum(one.passages == 0 for one in beside),
    }


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("model")
    parser.add_argument("index", type=Path)
    parser.add_argument("--answers", type=Path, help="where the answers are kept")
    parser.add_argument("--save", action="store_true")
    chosen = parser.parse_args()
    world = World.real()
    opened = ModelOpener(world, {"model": chosen.model}).open()
    kept = chosen.answers or chosen.index.with_suffix(".answers.jsonl")
    with Documents(world) as documents:
        documents.add("retrieval", Index.open(chosen.index))
        result = summary(opened.preset.name, asked_all(opened, documents, kept))
    print(json.dumps(result, indent=1))
    if chosen.save:
        results = json.loads(RESULTS.read_text("utf-8"))
        results["answers"] = result
        RESULTS.write_text(json.dumps(results, ensure_ascii=False, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
