"""Run llmchat with a file size limit, beyond which writes fail as on a full disk.

Arguments: bytes, then those of llmchat.
"""

import resource
import sys

from llmchat.cli import main

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.exit(main(sys.argv[2:]))
