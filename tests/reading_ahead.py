"""Observes how scans are read ahead: which executor is used, how many are in memory."""

import concurrent.futures
import pickle
import weakref


class PicklingExecutor(concurrent.futures.ThreadPoolExecutor):
    """Pickles each function and case, and calls the copies.

    Attributes:
      num_calls: number of submitted calls.
      largest: size of the largest pickled call, in bytes.
    """

    def __init__(self):
        super().__init__(1)
        self.num_calls = self.largest = 0

    def submit(self, function, case):
        call = pickle.dumps((function, case))
        self.num_calls += 1
        self.largest = max(self.largest, len(call))
        return super().submit(*pickle.loads(call))


def count_live_scans(monkeypatch, module):
    """Counts, for each scan that a module prepares, earlier ones still in memory."""
    scans, alive = [], []
    original = module.prepare_scan

    def prepare_scan(*arguments, **options):
        alive.append(sum(reference() is not None for reference in scans))
        scan = original(*arguments, **options)
        scans.append(weakref.ref(scan))
        return scan

    monkeypatch.setattr(module, "prepare_scan", prepare_scan)
    return alive
