"""Did it help? Task files asked of several models, one in memory at a time, with intervals that say what the numbers are worth.

tasks reads what is asked, measure asks one item, run goes through items and models, statistics and report say what came of it. The room
asks through `chat.reply` and knows no prompt format; harness lets lm-evaluation-harness ask instead.
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
