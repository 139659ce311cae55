"""The process that talks to the web and reads pages for `child`: one job on stdin, one answer.

Pages are hostile input for large parsers, and name servers, TLS and search libraries block as long
as they like. In a process of its own all of it has limits of memory and time, and can be killed.
"""

import resource
import signal
import sys

import msgspec

from llmchat.errors import LlmchatError
from llmchat.tools.web.jobs import Done, Job, work

MEMORY = 2_000_000_000


def main() -> None:
    """Read a job from stdin, write what came of it to stdout. Limits hold from here on."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    _limit(int(job.access.seconds) + 5)
    try:
        done = work(job)
    except LlmchatError as error:
        done = Done(error=error.message, hint=error.hint)
    except MemoryError:
        done = Done(error="the page needs too much memory")
    except Exception as error:
        # Parsers fail in many ways on pages that were made to make them fail.
        done = Done(error=f"the page cannot be read ({type(error).__name__})")
    sys.stdout.buffer.write(msgspec.json.encode(done))


def _limit(seconds: int) -> None:
    """Limit memory and time. If the parent is killed, nobody ends this process but itself."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    signal.alarm(2 * seconds)


if __name__ == "__main__":
    main()
