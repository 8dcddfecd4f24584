r"""
====================================================
Can a hidden rotation be seen in one noisy reading?
====================================================

A point turns in a plane, slowly losing its way; one coordinate of it is read, with noise as large
as the signal. The state needs two dimensions though the reading has one:

.. math::

    S_t \sim N(A S_{t-1}, \Gamma), \qquad X_t \sim N(B S_t, \Sigma)

``KalmanSmoother`` starts from subspace identification where there are more states than features,
and finds the rotation: the angle of the eigenvalues of :math:`A` does not depend on the coordinates
that the state happens to have. Everything else does, so the comparison is in the observation's
coordinates: :math:`B S_t`.
"""

import matplotlib.pyplot as plt
import numpy as np

from sklseq import KalmanSmoother

angle = 2 * np.pi / 25
turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
truth = KalmanSmoother.from_parameters(
    transition_matrix=0.985 * turn,
    transition_covariance=0.03,
    observation_matrix=[[1.0, 0.0]],
    observation_covariance=1.0,
    initial_state_mean=[1.0, 0.0],
    initial_state_covariance=1.0,
)
X, states = truth.sample(500, random_state=3)

# %%
# One state turns nowhere, two do; a third is not worth its parameters.

print("states   score     BIC    period")
for n_components in (1, 2, 3):
    model = KalmanSmoother(n_components, max_iter=2000, tol=1e-5).fit(X)
    turning = np.abs(np.angle(np.linalg.eigvals(model.transition_matrix_))).max()
    period = f"{2 * np.pi / turning:6.1f}" if turning > 0 else "  none"
    print(f"{n_components:6d} {model.score(X):8.4f} {model.bic(X):8.1f}   {period}")
print(f" truth {truth.score(X):8.4f}              {2 * np.pi / angle:6.1f}")

# %%
# The signal that nobody read: smoothed, against the truth.

model = KalmanSmoother(2, max_iter=2000, tol=1e-5).fit(X)
signal = model.inverse_transform(model.transform(X))[:, 0]
error = np.sqrt(np.mean((signal - states[:, 0]) ** 2))
print(f"error of the smoothed signal {error:.2f}, of the raw reading "
      f"{np.sqrt(np.mean((X[:, 0] - states[:, 0]) ** 2)):.2f}")

figure, axis = plt.subplots(figsize=(9, 3.5), layout="constrained")
shown = slice(0, 150)
axis.plot(X[shown, 0], ".", color="0.7", label="reading")
axis.plot(states[shown, 0], "k--", lw=1, label="hidden coordinate")
axis.plot(signal[shown], "C3", label="smoothed")
axis.set(title="A hidden rotation", xlabel="step", ylabel="first coordinate")
axis.legend(loc="lower right", ncols=3)
