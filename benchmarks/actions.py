"""How well a model without tools uses an action: `CALC(<expression>)` for arithmetic.

python benchmarks/actions.py traces FILE          some hundred traces to train on, as Alpaca records
python benchmarks/actions.py score MODEL         calls where arithmetic is asked for, and elsewhere

Train the adapter between the two:

    llmchat finetune --base smollm2 --format alpaca --data FILE --output pupil --epochs 2

MODEL is a name that `llmchat chat -m` takes. It answers 40 questions that need arithmetic and 40
that do not, greedily, in wordings and with numbers that no trace has. `--bare` leaves out the
preamble that teaches the action, which a trained model does not need.
"""

import argparse
import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from llmchat.actions import Action
from llmchat.chat import Chat
from llmchat.history import History
from llmchat.models.opener import ModelOpener
from llmchat.presets import get_format
from llmchat.settings import World
from llmchat.tools import ToolSettings
from llmchat.tools.permission import Permissions
from llmchat.tools.registry import tools_of
from llmchat.tools.toolbox import Result, Toolbox

PREAMBLE = """\
To calculate, write CALC(expression). The result appears behind it. Otherwise just answer.
Question: What is 12 times 7? Answer: CALC(12 * 7) → 84
It is 84.
Question: Who wrote Hamlet? Answer: William Shakespeare."""
CALC = Action("CALC(<expression>)", "calculator", preamble=PREAMBLE)

# Sentence, expression, how the answer ends. {a}, {b}: numbers.
_SUMS = (
    ("What is {a} times {b}?", "{a} * {b}"),
    ("What is {a} plus {b}?", "{a} + {b}"),
    ("How much is {a} minus {b}?", "{a} - {b}"),
    ("Calculate {a} * {b}.", "{a} * {b}"),
    ("A shop sells {a} boxes with {b} pens each. How many pens is that?", "{a} * {b}"),
    ("I have {a} euros and spend {b}. How much is left?", "{a} - {b}"),
    ("There are {a} students and {b} teachers. How many people is that?", "{a} + {b}"),
    ("What is {b}% of {a}?", "{b}% of {a}"),
    ("Divide {a} by {b}.", "{a} / {b}"),
    ("What is the product of {a} and {b}?", "{a} * {b}"),
    ("Multiply {a} by {b}.", "{a} * {b}"),
    ("Please multiply {b} by {a}.", "{b} * {a}"),
    ("Each of {a} children gets {b} apples. How many apples is that?", "{a} * {b}"),
    ("One book costs {b} euros. How much do {a} books cost?", "{a} * {b}"),
    ("A box weighs {b} kilos. How heavy are {a} of them?", "{a} * {b}"),
    ("Add {b} and {a}.", "{b} + {a}"),
    ("When you add {a} to {b}, what is the sum?", "{a} + {b}"),
    ("I had {a} stamps and got {b} more. How many now?", "{a} + {b}"),
    ("Take {b} away from {a}.", "{a} - {b}"),
    ("A hall has {a} chairs; {b} are broken. How many can be used?", "{a} - {b}"),
    ("Of {a} eggs, {b} were sold. How many remain?", "{a} - {b}"),
)
_OTHERS = (
    ("What is the capital of {place}?", "The capital of {place} is {capital}."),
    ("Say hello in {language}.", "{hello}"),
    ("What colour is {thing}?", "{thing} is {colour}."),
    ("Is {thing} larger than a house?", "I think that depends on the {thing}."),
    ("Write one sentence about {place}.", "{place} is a country with a long history."),
    ("Who are you?", "I am a helpful assistant."),
    ("What does the word '{word}' mean?", "'{word}' is an English word."),
    ("Give me a synonym of '{word}'.", "A similar word is '{synonym}'."),
    ("How many days has a week?", "A week has seven days."),
    ("How many months has a year?", "A year has twelve months."),
    ("How many wheels has a bicycle?", "A bicycle has two wheels."),
    ("In which century did Columbus sail to America?", "In the 15th century, in 1492."),
    ("In what year did the first man land on the moon?", "In 1969."),
    ("Which number is even, 4 or 7?", "The even number is 4."),
    ("Which bus do I take, 12 or 40?", "I do not know which bus you need."),
    ("My code is {code}. Say it again.", "Your code is {code}."),
    ("The office is at number {code}. Repeat the number.", "The number is {code}."),
    ("Translate 'hello' into {language}.", "{hello}"),
    ("How do you say 'thanks' in French?", "Merci."),
    ("Thanks for your help!", "You are welcome!"),
    ("Tell me something about {thing}.", "Many people know {thing} well."),
    ("What is the opposite of '{word}'?", "It is a word such as 'not {word}'."),
)
_NAMES = {
    "place": ("France", "Japan", "Kenya", "Peru", "Norway", "Egypt"),
    "capital": ("Paris", "Tokyo", "Nairobi", "Lima", "Oslo", "Cairo"),
    "language": ("French", "German", "Spanish", "Italian"),
    "hello": ("Bonjour!", "Hallo!", "¡Hola!", "Ciao!"),
    "thing": ("grass", "snow", "coal", "blood", "the sky", "a lemon"),
    "colour": ("green", "white", "black", "red", "blue", "yellow"),
    "code": ("4711", "22 18", "903", "555 1234", "17", "8080"),
    "word": ("quick", "happy", "large", "cold"),
    "synonym": ("fast", "glad", "big", "chilly"),
}
# Wordings that no trace has.
_NEW_SUMS = (
    ("Could you work out {a} multiplied by {b}?", "{a} * {b}"),
    ("{a} people each pay {b} euros. How much money is collected?", "{a} * {b}"),
    ("Sum up {a} and {b}.", "{a} + {b}"),
    ("From a rope of {a} metres, {b} metres are cut off. What is left?", "{a} - {b}"),
)
_NEW_OTHERS = (
    "Who invented the light bulb?", "Tell me a riddle.", "What is a telescope?",
    "Name two rivers in Europe.", "Why do birds fly south?", "What do cows eat?",
    "Translate 'good morning' into Italian.", "In which year did the Titanic sink?",
    "Write a title for a story about a lost dog.", "Is fire hot?", "What is JavaScript?",
    "How many strings has a violin?", "What is the smallest planet?", "See you tomorrow!",
    "Give me advice on sleeping well.", "Which seat is mine, 5 or 9?", "Describe the sea.",
    "My postcode is 10115. Write it down again.", "How do I greet a teacher?",
    "How many players has a football team?",
)  # fmt: skip


class Question(Struct, frozen=True):
    """expression: what to calculate; empty where nothing is."""

    text: str
    expression: str = ""


def traces(count: int, seed: int) -> Iterator[dict[str, str]]:
    """Alpaca records: three of five calculate, with the result as the calculator writes it."""
    draw = random.Random(seed)
    calculate = _calculator()
    for number in range(count):
        if number % 5 > 2:
            question, answer = draw.choice(_OTHERS)
            place = draw.randrange(1000)
            names = {name: texts[place % len(texts)] for name, texts in _NAMES.items()}
            output = answer.format(**names)
            text = question.format(**names)
        else:
            text, expression = _sum(draw, _SUMS)
            result = calculate(expression)
            output = f"CALC({expression}){CALC.written(result)}It is {result}."
        yield {"instruction": text, "input": "", "output": output}


def questions(seed: int) -> list[Question]:
    """40 questions that need arithmetic and 40 that do not, none of them in a trace."""
    draw = random.Random(seed)
    sums = [Question(*_sum(draw, _NEW_SUMS)) for _ in range(40)]
    others = [Question(text) for text in _NEW_OTHERS]
    return [*sums, *others, *(Question(f"Please answer: {one.text}") for one in others)]


def _sum(draw: random.Random, kinds: tuple[tuple[str, str], ...]) -> tuple[str, str]:
    numbers = {"a": draw.randrange(100, 1000), "b": draw.randrange(2, 100)}
    text, expression = draw.choice(kinds)
    return text.format(**numbers), expression.format(**numbers)


def _calculator() -> Callable[[str], str]:
    (tool,) = tools_of(["calculator"], ToolSettings(World.real()))
    box = Toolbox([tool], Permissions(None, ["calculator"]))

    def calculate(expression: str) -> str:
        from llmchat.calls import Call

        return box.run(Call("", "calculator", {"expression": expression}), len, 10_000).text

    return calculate


def score(model: str, form: str, *, bare: bool) -> None:
    """Print how often the model calls, where it should and where it should not."""
    world = World.real()
    opened = ModelOpener(world, {"model": model}, None, {}).open(waiting=False)
    action = replace(CALC, preamble="") if bare else CALC
    preset = replace(opened.preset, actions=(action,))
    if form:
        preset = replace(preset, format=get_format(form))
    sampling = replace(preset.sampling, temperature=0.0, max_tokens=60)
    calculate = _calculator()
    counts = dict.fromkeys(("called", "expression", "answer", "called in vain"), 0)
    asked = questions(seed=99)
    for question in asked:
        tools = tools_of(["calculator"], ToolSettings(world))
        box = Toolbox(tools, Permissions(None, ["calculator"]))
        chat = Chat(preset, opened.engine, History(None), sampling, tools=box)
        results = [event for event in chat.send(question.text) if isinstance(event, Result)]
        text = chat.conversation.messages[-1].text
        if not question.expression:
            counts["called in vain"] += bool(results)
            continue
        right = calculate(question.expression)
        counts["called"] += bool(results)
        counts["expression"] += any(result.text == right for result in results)
        counts["answer"] += right in re.sub(r"(?<=\d),(?=\d{3})", "", text)
    needed = sum(bool(question.expression) for question in asked)
    print(json.dumps({"model": model, "of": [needed, len(asked) - needed], **counts}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["traces", "score"])
    parser.add_argument("name")
    parser.add_argument("--format", default="", help="prompt format, where not the preset's")
    parser.add_argument("--bare", action="store_true", help="no preamble")
    given = parser.parse_args()
    if given.what == "score":
        return score(given.name, given.format, bare=given.bare)
    lines = (json.dumps(record, ensure_ascii=False) for record in traces(900, seed=1))
    Path(given.name).write_text("\n".join(lines) + "\n", "utf-8")
    return None


if __name__ == "__main__":
    main()
