"""What all requests share."""

import asyncio
import time
import uuid
from dataclasses import dataclass, field

from llmchat.server.catalog import Catalog
from llmchat.server.conversations import ConversationStore
from llmchat.server.keys import Keys
from llmchat.server.metrics import Metrics
from llmchat.server.pool import Pool
from llmchat.server.prompt_workers import PromptWorkers


@dataclass
class ServerState:
    """trim: whether conversations that do not fit are cut, where the request does not say; log_prompts: whether the log shows what was said.

    conversations: of the web page, where the server keeps them; prompt_workers: where prompts are rendered and tokenised; stop: ends the server, gracefully.
    """

    catalog: Catalog
    pool: Pool
    keys: Keys
    metrics: Metrics
    trim: bool = False
    log_prompts: bool = False
    conversations: ConversationStore | None = None
    started: float = field(default_factory=time.time)
    used: float = field(default_factory=time.monotonic)
    prompt_workers: PromptWorkers = field(default_factory=PromptWorkers)
    stop: asyncio.Event = field(default_factory=asyncio.Event)


def new_id(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex}"
