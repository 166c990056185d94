"""A `Progress` that records what is reported to it."""


class RecordedProgress:
    """Creates bars and keeps them.

    Attributes:
      bars: all bars, in the order in which they were created.
    """

    def __init__(self):
        self.bars = []

    def __call__(self, iterable=None, desc=None, **options):
        self.bars.append(RecordedBar(iterable, desc, **options))
        return self.bars[-1]

    @property
    def counts(self):
        """Name, unit and total of each bar; all must be complete."""
        assert all(bar.done == bar.total for bar in self.bars)
        return [(bar.desc, bar.unit, bar.total) for bar in self.bars]


class RecordedBar:
    """What one bar would show."""

    def __init__(
        self,
        iterable=None,
        desc=None,
        *,
        total=None,
        initial=0,
        unit="it",
        leave=True,
        delay=0,
    ):
        self.items = iterable
        self.desc = desc
        self.total = len(iterable) if total is None else total
        self.initial = self.done = initial
        self.unit = unit
        self.leave = leave
        self.delay = delay
        self.values = []
        self.unpaused = []

    def __iter__(self):
        for item in self.items:
            yield item
            self.done += 1

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def update(self, n=1):
        self.done += n

    def set_postfix(self, *, refresh=True, **values):
        self.values.append(values)

    def unpause(self):
        self.unpaused.append(self.done)
