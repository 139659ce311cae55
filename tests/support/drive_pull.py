"""Run llmchat with a file size limit: a write beyond it fails as one on a full disk does. Arguments: bytes, then those of llmchat."""

import resource
import sys

from llmchat.cli import main

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.exit(main(sys.argv[2:]))
