"""Answers many prompts from a file, several at once; a run that was stopped goes on."""

from llmchat.batch.asking import Ask as Ask
from llmchat.batch.reading import Line as Line
from llmchat.batch.reading import lines_of as lines_of
from llmchat.batch.results import Results as Results
from llmchat.batch.run import Outcome as Outcome
from llmchat.batch.run import Work as Work
from llmchat.batch.run import run as run
