"""What a worker process does before its first case."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading


def start(num_threads: int) -> None:
    """Initializer of a pool of processes.

    A pool whose owner is killed leaves its workers waiting for ever, each with the
    memory of its last case. This one ends with its owner.

    Args:
      num_threads: threads of SimpleITK and NumPy in this process.
    """
    # NumPy reads these when it is imported, which SimpleITK does.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(num_threads)
    import SimpleITK as sitk

    # Ctrl-C goes to all processes of a terminal; the owner alone answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(num_threads)
    threading.Thread(target=_end_with_owner, daemon=True).start()


def _end_with_owner() -> None:
    owner = multiprocessing.parent_process()
    if owner is not None:
        multiprocessing.connection.wait([owner.sentinel])
        os._exit(1)
