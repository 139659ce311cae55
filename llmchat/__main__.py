"""`python -m llmchat`, and the console script: the import of the program itself can be interrupted cleanly."""

import os
import sys
import threading


def run() -> int:
    try:
        from llmchat.cli import main

        code = main(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    if any(thread.name == "load" for thread in threading.enumerate()):
        # Left while a model was loading. Python would end under the feet of torch's threads, which abort the process then.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(run())
