"""Where tensors are of architectures whose converter does more than to rename and to stack.

After llama.cpp's converters (conversion/*.py): a pattern of our names, and what makes its places.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from llmchat.engines.transformers.quantised.gguf_places import Stored

Config = Mapping[str, Any]
Make = Callable[[re.Match[str], Config], list[Stored]]

PLACES: dict[str, list[tuple[re.Pattern[str], Make]]] = {}
