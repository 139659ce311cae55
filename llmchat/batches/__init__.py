"""Answers many prompts from a file, several at once; a run that was stopped can be continued."""

from llmchat.batches.asking import Ask as Ask
from llmchat.batches.reading import Line as Line
from llmchat.batches.reading import lines_of as lines_of
from llmchat.batches.results import Results as Results
from llmchat.batches.run import Outcome as Outcome
from llmchat.batches.run import Work as Work
from llmchat.batches.run import run as run
