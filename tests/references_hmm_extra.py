"""Oracles of what the HMM wing has beyond the three first families: slow, and sharing no code.

Priors as densities of scipy.stats, families as sums over rows, distributions by adding up.
"""

from __future__ import annotations

import numpy as np
from references import (
    Family,
    floored,
    full_covariances,
    gaussian_log_obs,
    gaussian_m_step,
    random_chain,
    safe_log,
)
from scipy import optimize, stats
from scipy.special import logsumexp

# --- Gaussian mixtures --------------------------------------------------------------------------


def mixture_log_joint(X, p, covariance_type) -> np.ndarray:
    """log weight_km N(x | mean_km, C_km), (n, K, M)."""
    joints = [
        gaussian_log_obs(X, means, covars, covariance_type) + safe_log(weights)
        for weights, means, covars in zip(p["weights"], p["means"], p["covars"])
    ]
    return np.stack(joints, axis=1)


def mixture_log_obs(X, p, covariance_type) -> np.ndarray:
    return logsumexp(mixture_log_joint(X, p, covariance_type), axis=2)


def mixture_m_step(X, posteriors, p, covariance_type) -> dict:
    joint = mixture_log_joint(X, p, covariance_type)
    share = np.exp(joint - logsumexp(joint, axis=2, keepdims=True)) * posteriors[:, :, None]
    mass = share.sum(axis=0)
    steps = [
        gaussian_m_step(X, share[:, k], p["means"][k], p["covars"][k], covariance_type)
        for k in range(posteriors.shape[1])
    ]
    return {
        "weights": mass / mass.sum(axis=1, keepdims=True),
        "means": np.stack([means for means, _ in steps]),
        "covars": np.stack([covars for _, covars in steps]),
    }


def mixture_family(covariance_type, n_mix=2) -> Family:
    def random_parameters(rng, n_states, n_features):
        roots = rng.normal(size=(n_states, n_mix, n_features, n_features))
        full = roots @ np.swapaxes(roots, 2, 3) + 0.5 * np.eye(n_features)
        covars = {
            "full": full,
            "tied": full[:, 0],
            "diag": np.einsum("kmii->kmi", full),
            "spherical": full[:, :, 0, 0],
        }[covariance_type]
        return {
            **random_chain(rng, n_states),
            "weights": rng.dirichlet(np.full(n_mix, 3.0), n_states),
            "means": rng.normal(scale=3.0, size=(n_states, n_mix, n_features)),
            "covars": covars.copy(),
        }

    def draw(rng, states, p):
        n_features = p["means"].shape[2]
        full = [full_covariances(covars, covariance_type, n_mix, n_features)
                for covars in p["covars"]]  # fmt: skip
        rows = []
        for s in states:
            m = rng.choice(n_mix, p=p["weights"][s])
            rows.append(rng.multivariate_normal(p["means"][s, m], full[s][m]))
        return np.array(rows)

    return Family(
        f"mixture-{covariance_type}",
        lambda X, p: mixture_log_obs(X, p, covariance_type),
        lambda X, posteriors, p: mixture_m_step(X, posteriors, p, covariance_type),
        random_parameters,
        draw,
        {"covariance_type": covariance_type, "n_mix": n_mix},
    )


# --- Multinomial counts -------------------------------------------------------------------------


def multinomial_log_obs(X, emissionprob) -> np.ndarray:
    return np.array([
        [stats.multinomial.logpmf(row, int(row.sum()), table) for table in emissionprob]
        for row in X
    ])


def multinomial_m_step(X, posteriors, alpha=0.0) -> np.ndarray:
    counts = sum(np.outer(posterior, row) for posterior, row in zip(posteriors, X)) + alpha
    return counts / counts.sum(axis=1, keepdims=True)


def multinomial_family() -> Family:
    def random_parameters(rng, n_states, n_features):
        table = rng.dirichlet(np.ones(n_features + 1), n_states)
        return {**random_chain(rng, n_states), "emissionprob": table}

    def draw(rng, states, p):
        totals = rng.integers(0, 12, len(states))
        return np.array([
            rng.multinomial(n, p["emissionprob"][s]) for n, s in zip(totals, states)
        ]).astype(float)

    return Family(
        "multinomial",
        lambda X, p: multinomial_log_obs(X, p["emissionprob"]),
        lambda X, posteriors, p: {"emissionprob": multinomial_m_step(X, posteriors)},
        random_parameters,
        draw,
        {},
    )


EXTRA_FAMILIES = [
    *(mixture_family(kind) for kind in ("full", "tied", "diag", "spherical")),
    multinomial_family(),
]


# --- Priors, as densities of scipy.stats --------------------------------------------------------


def log_dirichlet(rows, concentrations) -> float:
    """Rows of strictly positive probabilities."""
    rows, concentrations = np.atleast_2d(rows), np.atleast_2d(concentrations)
    return sum(stats.dirichlet.logpdf(p / p.sum(), c) for p, c in zip(rows, concentrations))


def log_normal_wishart(mean, precision, prior_mean, means_weight, prior_covar, covars_weight):
    """N(mean | m0, (k P)^-1) Wishart(P | w + D degrees of freedom, (w C0)^-1)."""
    n_features = len(mean)
    degrees = covars_weight + n_features
    scale = np.linalg.inv(covars_weight * prior_covar)
    return stats.multivariate_normal.logpdf(
        mean, prior_mean, np.linalg.inv(means_weight * precision)
    ) + stats.wishart.logpdf(precision, degrees, scale)


def gaussian_posterior_mode(X, posteriors, covariance_type, prior, reg_covar=1e-6):
    """Means and covariances that maximise the expected log-likelihood plus the prior, by hand.

    `prior`: means (K, D), means_weight, full covariances (K, D, D), covars_weight; complete data.
    """
    m0, kappa, C0, nu = prior
    n_states = len(m0)
    mass = posteriors.sum(axis=0)
    means = (posteriors.T @ X + kappa * m0) / (mass + kappa)[:, None]
    scatter = np.array([
        (X - means[k]).T @ ((X - means[k]) * posteriors[:, k, None])
        + kappa * np.outer(m0[k] - means[k], m0[k] - means[k])
        for k in range(n_states)
    ])
    scale = np.nanstd(X, axis=0)
    if covariance_type == "tied":
        covars = floored((scatter.sum(axis=0) + nu * C0[0]) / (mass.sum() + nu), scale, reg_covar)
        return means, covars
    full = (scatter + nu * C0) / (mass + nu)[:, None, None]
    if covariance_type == "full":
        return means, np.array([floored(one, scale, reg_covar) for one in full])
    variances = np.einsum("kdd->kd", full)
    return means, variances if covariance_type == "diag" else variances.mean(axis=1)


def constrained_rows(counts, start, free):
    """Rows of largest sum(counts * log p) with entries not `free` held, numerically."""
    result = start.copy()
    for i in range(len(start)):
        index = np.flatnonzero(free[i])
        if len(index) < 2:
            continue
        mass = 1.0 - start[i][~free[i]].sum()

        def negative(logits, index=index, mass=mass, i=i):
            logits = np.append(logits, 0.0)
            p = mass * np.exp(logits - logsumexp(logits))
            return -(counts[i, index] @ np.log(p))

        found = optimize.minimize(negative, np.zeros(len(index) - 1), tol=1e-12)
        logits = np.append(found.x, 0.0)
        result[i, index] = mass * np.exp(logits - logsumexp(logits))
    return result


# --- Distributions of the observations ----------------------------------------------------------


def normal_mixture_quantile(weights, means, deviations, probability) -> float:
    def excess(x):
        return weights @ stats.norm.cdf(x, means, deviations) - probability

    ends = stats.norm.ppf(probability, means, deviations)
    if np.ptp(ends) == 0:
        return ends[0]
    return optimize.brentq(excess, ends.min() - 1.0, ends.max() + 1.0, xtol=1e-14, rtol=1e-14)


def discrete_quantile(mass, probability) -> int:
    """The first index whose cumulative mass reaches the probability."""
    return int(np.flatnonzero(np.cumsum(mass) >= probability)[0])


def weights_given_others(startprob, transmat, log_obs, *, past_only) -> np.ndarray:
    """P(s_t = k | the other observations): what the data at t say is taken out, path by path."""
    from references import all_paths

    result = np.empty_like(log_obs)
    for t in range(len(log_obs)):
        blank = log_obs.copy()
        blank[t:] = 0.0 if past_only else blank[t:]
        blank[t] = 0.0
        paths, joint = all_paths(startprob, transmat, blank)
        share = np.exp(joint - logsumexp(joint))
        result[t] = [share[paths[:, t] == k].sum() for k in range(log_obs.shape[1])]
    return result
