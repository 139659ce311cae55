"""Enforces the structure of an answer and the budget of its thinking, token by token.

llguidance computes which tokens may follow. `check` tells before anything is loaded whether a
structure can be enforced; `Guides` belongs to a loaded model and makes a `Guide` for each answer.
Nothing here needs torch.
"""

from llmchat.engines.guide.checking import check
from llmchat.engines.guide.guide import CannotGoOn, Guide
from llmchat.engines.guide.guides import Guides
from llmchat.engines.guide.mask import Mask

__all__ = ["CannotGoOn", "Guide", "Guides", "Mask", "check"]
