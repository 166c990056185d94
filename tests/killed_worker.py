"""What a worker process that runs out of memory looks like to its owner."""

import os


def end_process(*arguments):
    """Ends this process silently, whatever its argument."""
    os._exit(1)
