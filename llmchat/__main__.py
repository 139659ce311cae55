"""`python -m llmchat`, and the console script: the import of the program itself can be interrupted cleanly."""

import sys


def run() -> int:
    try:
        from llmchat.cli import main

        return main(sys.argv[1:])
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(run())
