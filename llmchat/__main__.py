"""`python -m llmchat`, and the console script; Ctrl-C during the imports exits quietly."""

import sys
import threading


def run() -> int:
    """Run the command line of this process and return its exit code."""
    try:
        from llmchat.cli import main

        code = main(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    if any(thread.name == "load" for thread in threading.enumerate()):
        # A model is still loading. Ending Python under torch's threads would abort the process.
        from llmchat.process.startup import exit_at_once

        exit_at_once(code)
    return code


if __name__ == "__main__":
    sys.exit(run())
