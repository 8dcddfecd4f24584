"""Probabilities of large counts, in Loader's saddle-point form.

    log Poisson(x | m) = -D(x, m) - e(x) - log(2 pi x) / 2

with D the deviance ``x log(x / m) + m - x`` and e the error of Stirling's formula: what the plain
form adds up, x log m - m - log x!, cancels to the last 1e-6 at counts of 1e9.

C. Loader (2000), "Fast and accurate computation of binomial probabilities", sec. 3.
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

LARGE = 4096.0  # counts from here on lose digits in the plain form
SERIES_FROM = 16.0
# B_2j / (2j (2j - 1)) of Stirling's series (Abramowitz & Stegun 6.1.40)
STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188)
DEVIANCE_TERMS = 10  # of a series in (x - m)^2 / (x + m)^2 < 0.01


def stirling_error(counts) -> np.ndarray:
    """log x! - log(sqrt(2 pi x) (x / e)^x) for x > 0."""
    small = np.minimum(counts, SERIES_FROM)
    direct = gammaln(small + 1.0) - (small + 0.5) * np.log(small) + small - np.log(2 * np.pi) / 2
    large = np.maximum(counts, SERIES_FROM)
    series, power = np.zeros_like(large), 1.0 / large
    for coefficient in STIRLING:
        series += coefficient * power
        power = power / large / large
    return np.where(counts < SERIES_FROM, direct, series)


def deviance(counts, means) -> np.ndarray:
    """x log(x / m) + m - x, for x, m >= 0; m where x is 0, infinite where only m is 0."""
    counts, means = np.broadcast_arrays(counts, means)
    apart, total = counts - means, counts + means
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        share = np.where(total > 0, apart / total, 0.0)
        far = np.where(counts > 0, counts * np.log(counts / means), 0.0) - apart
    square, power = share**2, 2 * counts * share
    near = apart * share  # x log(x / m) = 2 x artanh(share)
    for j in range(1, DEVIANCE_TERMS + 1):
        power = power * square
        near = near + power / (2 * j + 1)
    return np.where(np.abs(share) < 0.1, near, far)


def half_log(counts) -> np.ndarray:
    """e(x) + log(2 pi x) / 2, and 0 where x is 0."""
    positive = np.where(counts > 0, counts, 1.0)
    parts = stirling_error(positive) + np.log(2 * np.pi * positive) / 2
    return np.where(counts > 0, parts, 0.0)
