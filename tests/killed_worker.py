"""What a worker process that runs out of memory looks like to its owner."""

import os


def end_process(*arguments):
    """Ends this process without a word, whatever it is asked to do."""
    os._exit(1)
