"""Measure whether a change to a model helped: task files, several models, confidence intervals.

`tasks` reads the items, `measure` asks one item, `run` goes through items and models, `statistics`
and `report` summarise. Answers come from `chat.reply`; nothing here knows a prompt format.
`harness` runs the tasks of lm-evaluation-harness instead.
"""

from llmchat.evaluate.harness import run_harness
from llmchat.evaluate.measure import AskOptions, Result
from llmchat.evaluate.run import Outcome, ResultFile, run
from llmchat.evaluate.tasks import Item, read_tasks

__all__ = [
    "AskOptions",
    "Item",
    "Outcome",
    "Result",
    "ResultFile",
    "read_tasks",
    "run",
    "run_harness",
]
