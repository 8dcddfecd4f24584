r"""
=================================================
How high was the Nile in the years nobody looked?
=================================================

The yearly flow of the Nile at Aswan, 1871 to 1970, as a local level (Durbin and Koopman 2012,
chapter 2): a level that wanders, seen through noise.

.. math::

    S_t \sim N(S_{t-1}, \Gamma), \qquad X_t \sim N(S_t, \Sigma)

Forty years are taken out. A missing year is NaN and nothing else: the model is fitted on the sixty
that are left, the smoother bridges the gaps with the uncertainty that belongs to them, and the same
equations run on into the future, where the fan includes the noise of the observations.
"""

import matplotlib.pyplot as plt
import numpy as np

from sklseq import KalmanSmoother
from sklseq.datasets import load_nile
from sklseq.inspection import SmootherDisplay

nile = load_nile()
years = np.arange(1871, 1971)
flow = np.asarray(nile.data, dtype=float).reshape(-1, 1)
X = flow.copy()
X[20:40] = X[60:80] = np.nan

# %%
# The level is the state: both matrices are 1 and stay so; the variances are learned. A level that
# wanders has no distribution of its own to start in, and nothing is known of 1870: the start is
# diffuse.

model = KalmanSmoother(
    initial_state="diffuse",
    fixed=("transition_matrix", "observation_matrix", "observation_offset"),
    transition_matrix_init=[[1.0]],
    observation_matrix_init=[[1.0]],
    observation_offset_init=[0.0],
    tol=1e-8,
).fit(X)
print(f"variance of the noise {model.observation_covariance_[0, 0]:8.0f}")
print(f"variance of a step    {model.transition_covariance_[0, 0]:8.0f}")

# %%
# Where years were taken out, the truth is known: how often is it inside the 90 % band?

posterior = model.smooth(X)
level = posterior.means[:, 0]
deviation = np.sqrt(posterior.covariances[:, 0, 0])
spread = np.sqrt(deviation**2 + model.observation_covariance_[0, 0])
hidden = np.isnan(X[:, 0])
inside = np.abs(flow[:, 0] - level)[hidden] < 1.645 * spread[hidden]
print(f"hidden years inside the 90 % band: {inside.sum()} of {hidden.sum()}")

# %%
# The display draws the band of the level, then, as a fan, where the next twenty observations may
# lie.  The years that were taken out are drawn beneath.

figure, axis = plt.subplots(figsize=(9, 4.5), layout="constrained")
axis.plot(years[hidden], flow[hidden], "o", mfc="none", color="0.5", label="taken out")
SmootherDisplay.from_estimator(model, X, n_ahead=20, time=years, coverage=0.9, ax=axis)
axis.set(xlabel="year", ylabel="flow at Aswan, 100 million cubic metres")
