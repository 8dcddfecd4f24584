"""What ``verbose`` prints of a fit: the same lines in all wings.

    [GaussianHMM] start 2 of 3: objective -1.2345 nats per step after 10 iterations
    [GaussianHMM] iteration 40 of at most 200: objective ..., elapsed 12 s, about 30 s to go
    [GaussianHMM] converged after 87 iterations: objective ..., elapsed 26 s, 1.2e+06 steps/s
"""

from __future__ import annotations

import time

EVERY = 10.0  # seconds between lines of a fit that takes long


class Progress:
    """verbose=1: a line for each of several starts, for every ten seconds, and at the end.

    With verbose=2 one for each iteration as well.
    """

    def __init__(self, name: str, verbose: int, unit: str = "iteration"):
        self.name, self.verbose, self.unit = name, int(verbose), unit
        self.start = self.last = time.monotonic()
        self.n_done = 0
        self.later = 0  # iterations of the starting values still to come

    def step(self, number: int, most: int, what: str, left: int, n_new: int = 1) -> None:
        """After `n_new` iterations, of which about `left` are still to come."""
        self.n_done += n_new
        now = time.monotonic()
        if not self.verbose or (self.verbose < 2 and now - self.last < EVERY):
            return
        self.last = now
        elapsed = now - self.start
        seconds = (left + self.later) * elapsed / self.n_done
        rest = f", about {seconds:.3g} s to go" if left + self.later else ""
        self.line(
            f"{self.unit} {number} of at most {most}: {what}, elapsed {elapsed:.3g} s{rest}"
        )

    def summary(self, converged: bool, number: int, what: str, n_units: float, units: str) -> None:
        """At the end; `n_units` are gone through in each iteration."""
        elapsed = max(time.monotonic() - self.start, 1e-9)
        self.line(
            f"{'converged' if converged else 'stopped'} after {number} {self.unit}"
            f"{'' if number == 1 else 'es' if self.unit.endswith('s') else 's'}: {what}, elapsed "
            f"{elapsed:.3g} s, {n_units * self.n_done / elapsed:.3g} {units}/s"
        )

    def line(self, text: str) -> None:
        if self.verbose:
            print(f"[{self.name}] {text}", flush=True)
