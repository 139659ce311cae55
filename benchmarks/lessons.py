"""A small school for the default model: instruction records in Alpaca's form, made by rule, so that every answer can be checked.

    python benchmarks/lessons.py train.jsonl held_out.jsonl

Six families of tasks. Held-out items share no input with the training items.
"""

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

NAMES = [
    "Anna",
    "Boris",
    "Clara",
    "David",
    "Elena",
    "Felix",
    "Greta",
    "Hugo",
    "Irene",
    "Jonas",
    "Klara",
    "Leon",
    "Maria",
    "Nils",
    "Olga",
    "Pavel",
    "Rosa",
    "Simon",
    "Tina",
    "Victor",
]
SURNAMES = [
    "Adams",
    "Baker",
    "Carter",
    "Dixon",
    "Evans",
    "Fisher",
    "Grant",
    "Hughes",
    "Irwin",
    "Jones",
    "Keller",
    "Lopez",
    "Mason",
    "Nolan",
    "Owens",
    "Parker",
    "Reed",
    "Stone",
    "Turner",
    "Young",
]
WORDS = [
    "apple",
    "bread",
    "chair",
    "door",
    "eagle",
    "forest",
    "garden",
    "house",
    "island",
    "jacket",
    "kettle",
    "lemon",
    "mirror",
    "needle",
    "orange",
    "pencil",
    "river",
    "stone",
    "table",
    "window",
]
THINGS = [
    "the book",
    "the key",
    "the map",
    "the lamp",
    "the ring",
    "the coat",
    "the letter",
    "the bottle",
    "the camera",
    "the ticket",
]
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
HOSTS = ["example.com", "mail.org", "post.net", "inbox.io", "letters.eu"]

Item = tuple[str, str, str]


def date(pick: random.Random) -> Item:
    year, month, day = pick.randint(1950, 2029), pick.randint(1, 12), pick.randint(1, 28)
    return (
        "Write the date in words.",
        f"{year}-{month:02}-{day:02}",
        f"{day} {MONTHS[month - 1]} {year}",
    )


def address(pick: random.Random) -> Item:
    name, host = pick.choice(NAMES), pick.choice(HOSTS)
    mail = f"{name.lower()}.{pick.choice(SURNAMES).lower()}@{host}"
    lines = (
        f"Please write to {mail} before Friday.",
        f"{name} can be reached at {mail} at any time.",
        f"Our new contact is {mail}, thank you.",
    )
    return "Find the e-mail address.", pick.choice(lines), mail


def record(pick: random.Random) -> Item:
    name, age, town = (
        pick.choice(NAMES),
        pick.randint(18, 90),
        pick.choice(("Paris", "Rome", "Oslo", "Cairo", "Lima", "Delhi")),
    )
    return (
        "Turn this into JSON.",
        f"{name} is {age} years old and lives in {town}.",
        json.dumps({"name": name, "age": age, "town": town}),
    )


def name(pick: random.Random) -> Item:
    first, last = pick.choice(NAMES), pick.choice(SURNAMES)
    return "Write the first name first.", f"{last}, {first}", f"{first} {last}"


def owner(pick: random.Random) -> Item:
    giver, taker = pick.sample(NAMES, 2)
    thing = pick.choice(THINGS)
    return f"Who has {thing} now?", f"{giver} gave {thing} to {taker}.", taker


def backwards(pick: random.Random) -> Item:
    words = pick.sample(WORDS, 3)
    return "Write the words in reverse order.", " ".join(words), " ".join(reversed(words))


FAMILIES: tuple[Callable[[random.Random], Item], ...] = (
    date,
    address,
    record,
    name,
    owner,
    backwards,
)


def lessons(
    train: int, held_out: int, seed: int = 0
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """`train` and `held_out` records, the families in turn, no input twice."""
    pick, seen, rows = random.Random(seed), set(), []
    while len(rows) < train + held_out:
        family = FAMILIES[len(rows) % len(FAMILIES)]
        instruction, material, output = family(pick)
        if (instruction, material) not in seen:
            seen.add((instruction, material))
            rows.append(
                {
                    "instruction": instruction,
                    "input": material,
                    "output": output,
                    "task": family.__name__,
                }
            )
    return rows[:train], rows[train:]


def write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def tasks(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The records as items of `llmchat evaluate`."""
    return [
        {
            "prompt": row["instruction"],
            "input": row["input"],
            "answer": row["output"],
            "kind": "exact",
            "task": row["task"],
        }
        for row in rows
    ]


if __name__ == "__main__":
    taught, kept = lessons(700, 120)
    write(
        Path(sys.argv[1]),
        [{key: row[key] for key in ("instruction", "input", "output")} for row in taught],
    )
    write(Path(sys.argv[2]), tasks(kept))
