"""How scans are read ahead: by whom, and how many are held."""

import concurrent.futures
import pickle
import weakref


class PicklingExecutor(concurrent.futures.ThreadPoolExecutor):
    """Calls what a function and its case are after they were pickled.

    Attributes:
      num_calls: how many were asked for.
      largest: bytes of the largest call.
    """

    def __init__(self):
        super().__init__(1)
        self.num_calls = self.largest = 0

    def submit(self, function, case):
        call = pickle.dumps((function, case))
        self.num_calls += 1
        self.largest = max(self.largest, len(call))
        return super().submit(*pickle.loads(call))


def note_scans(monkeypatch, module):
    """For each scan that a module prepares, how many before it are still held."""
    scans, alive = [], []
    original = module.prepare_scan

    def prepare_scan(*arguments, **options):
        alive.append(sum(reference() is not None for reference in scans))
        scan = original(*arguments, **options)
        scans.append(weakref.ref(scan))
        return scan

    monkeypatch.setattr(module, "prepare_scan", prepare_scan)
    return alive
