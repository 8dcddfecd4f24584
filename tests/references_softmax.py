"""Slow, obvious references for the softmax state-space model, which share no code with the package.

A *model* is a plain dict: A, Q (Gamma), B (V, d), b (V,), mean, covariance (of the first state).
Counts are dense ``(n, V)``; log-likelihoods are of the *ordered* words, without the multinomial
coefficient.  ``grid`` filters and smooths on a regular grid, where a Gaussian integrand makes the
rectangle rule exact to rounding; ``all_sequences`` lists the V^T sequences of words;
``bootstrap_filter`` is the textbook particle filter; ``gaussian_posterior`` finds the KL-optimal
Gaussian (or the Laplace one) with dense (T d)-square matrices; ``em_step`` is one step of EM on it.
"""

import itertools
from types import SimpleNamespace

import numpy as np
from scipy.linalg import block_diag, solve_discrete_lyapunov
from scipy.optimize import minimize


def random_model(seed, d, V, *, radius=0.9, strength=1.0, offset=0.5):
    """A stationary model; entries of B have sd `strength` where the stationary covariance is I."""
    rng = np.random.default_rng(seed)
    if d == 1:
        A = np.array([[radius]])
    else:
        A = rng.normal(size=(d, d))
        A *= radius / np.abs(np.linalg.eigvals(A)).max()
    Q = np.eye(d)
    P = solve_discrete_lyapunov(A, Q)
    root = np.linalg.cholesky(P)
    # the same model where the stationary covariance is I
    A, Q = np.linalg.solve(root, A @ root), np.linalg.inv(root) @ Q @ np.linalg.inv(root).T
    return {
        "A": A, "Q": (Q + Q.T) / 2, "B": strength * rng.normal(size=(V, d)),
        "b": offset * rng.normal(size=V), "mean": np.zeros(d), "covariance": np.eye(d),
    }  # fmt: skip


def logsumexp(x):
    """Along the last axis, which stays."""
    top = x.max(axis=-1, keepdims=True)
    return np.log(np.exp(x - top).sum(axis=-1, keepdims=True)) + top


def log_softmax(eta):
    return eta - logsumexp(eta)


def simulate(model, n, seed, n_words=1):
    rng = np.random.default_rng(seed)
    d = len(model["mean"])
    S, Y = np.empty((n, d)), np.empty((n, len(model["b"])))
    s = rng.multivariate_normal(model["mean"], model["covariance"])
    for t in range(n):
        if t:
            s = model["A"] @ s + rng.multivariate_normal(np.zeros(d), model["Q"])
        S[t] = s
        Y[t] = rng.multinomial(n_words, np.exp(log_softmax(model["B"] @ s + model["b"])))
    return Y, S


def log_words(model, Y, S):
    """log p(y_t | s) for every row of Y (n, V) and of S (m, d): (n, m)."""
    return Y @ log_softmax(S @ model["B"].T + model["b"]).T


# ---- exact filter and smoother


def grid(model, Y, *, size=None, reach=6.5):
    """Exact for d = 1, 2.  The stationary covariance should be about I."""
    d, n = len(model["mean"]), len(Y)
    size = size or (400 if d == 1 else 61)
    axis = np.linspace(-reach, reach, size)
    points = np.array(list(itertools.product(axis, repeat=d)))
    volume = (axis[1] - axis[0]) ** d

    def log_normal(x, covariance):
        root = np.linalg.cholesky(covariance)
        z = np.linalg.solve(root, x.T)
        return -0.5 * (z**2).sum(0) - np.log(np.diag(root)).sum() - 0.5 * d * np.log(2 * np.pi)

    moved = points @ model["A"].T
    kernel = np.empty((len(points), len(points)))  # [to, from]
    for i, point in enumerate(points):
        kernel[i] = np.exp(log_normal(point - moved, model["Q"])) * volume
    evidence = log_words(model, Y, points)
    filtered, step = np.empty((n, len(points))), np.empty(n)
    predicted = np.exp(log_normal(points - model["mean"], model["covariance"])) * volume
    for t in range(n):
        shift = evidence[t].max()
        joint = predicted * np.exp(evidence[t] - shift)
        step[t] = np.log(joint.sum()) + shift
        filtered[t] = joint / joint.sum()
        predicted = kernel @ filtered[t]
    smoothed = np.empty_like(filtered)
    smoothed[-1] = filtered[-1]
    backward = np.ones(len(points))
    for t in range(n - 2, -1, -1):
        backward = kernel.T @ (backward * np.exp(evidence[t + 1] - evidence[t + 1].max()))
        backward /= backward.max()
        smoothed[t] = filtered[t] * backward
        smoothed[t] /= smoothed[t].sum()

    def moments(weights):
        means = weights @ points
        second = np.einsum("tm,mi,mj->tij", weights, points, points)
        return means, second - means[:, :, None] * means[:, None, :]

    means, covariances = moments(smoothed)
    filtered_means, filtered_covariances = moments(filtered)
    return SimpleNamespace(
        step_ll=step, log_likelihood=step.sum(), means=means, covariances=covariances,
        filtered_means=filtered_means, filtered_covariances=filtered_covariances,
    )  # fmt: skip


def all_sequences(V, n):
    """Every sequence of n words, one-hot: (V**n, n, V)."""
    return np.eye(V)[np.array(list(itertools.product(range(V), repeat=n)))]


def bootstrap_filter(model, Y, n_particles, seed):
    """log p(y): particles move by the prior, resampled at every step (Gordon et al. 1993)."""
    rng = np.random.default_rng(seed)
    x = rng.multivariate_normal(model["mean"], model["covariance"], size=n_particles)
    root, total = np.linalg.cholesky(model["Q"]), 0.0
    for t, row in enumerate(Y):
        if t:
            x = x @ model["A"].T + rng.normal(size=x.shape) @ root.T
        log_weight = log_softmax(x @ model["B"].T + model["b"]) @ row
        total += logsumexp(log_weight)[0] - np.log(n_particles)
        weight = np.exp(log_weight - log_weight.max())
        edges = np.cumsum(weight / weight.sum())
        at = np.searchsorted(edges, (np.arange(n_particles) + rng.uniform()) / n_particles)
        x = x[np.minimum(at, n_particles - 1)]
    return total


# ---- Gaussian posteriors with dense matrices


def prior_moments(model, n):
    """Mean (n d,) and covariance (n d, n d) of the stacked states."""
    A, d = model["A"], len(model["mean"])
    mean, cov = np.empty((n, d)), np.zeros((n, n, d, d))
    mean[0], cov[0, 0] = model["mean"], model["covariance"]
    for t in range(1, n):
        mean[t] = A @ mean[t - 1]
        for s in range(t):
            cov[t, s] = A @ cov[t - 1, s]
            cov[s, t] = cov[t, s].T
        cov[t, t] = A @ cov[t - 1, t - 1] @ A.T + model["Q"]
    return mean.ravel(), cov.transpose(0, 2, 1, 3).reshape(n * d, n * d)


def hermite_rule(d, points=15):
    x, w = np.polynomial.hermite_e.hermegauss(points)
    nodes = np.array(list(itertools.product(x, repeat=d)))
    weights = np.prod(list(itertools.product(w / w.sum(), repeat=d)), axis=1)
    return nodes, weights


def cubature_rule(d):
    return np.sqrt(d) * np.vstack([np.eye(d), -np.eye(d)]), np.full(2 * d, 0.5 / d)


MODE = (np.zeros((1, 1)), np.ones(1))  # the one-point rule: expectations at the mean, Laplace


def expected_words(model, Y, means, covariances, rule):
    """E log p(y_t | s), its gradient and negative Hessian, under N(means, covariances)."""
    B, b = model["B"], model["b"]
    n, d = means.shape
    nodes, weights = rule if len(rule[1]) > 1 else (np.zeros((1, d)), rule[1])
    value, gradient, H = np.zeros(n), np.zeros((n, d)), np.zeros((n, d, d))
    roots, totals = np.linalg.cholesky(covariances), Y.sum(axis=1)
    pairs = B[:, :, None] * B[:, None, :]
    for node, weight in zip(nodes, weights):
        log_p = log_softmax((means + roots @ node) @ B.T + b)
        p = np.exp(log_p)
        value += weight * (Y * log_p).sum(axis=1)
        gradient += weight * (Y - totals[:, None] * p) @ B
        mean_B = p @ B
        second = np.tensordot(p, pairs, axes=1) - mean_B[:, :, None] * mean_B[:, None, :]
        H += weight * totals[:, None, None] * second
    return value, gradient, H


def gaussian_posterior(model, Y, rule=None, *, max_iter=300, tol=1e-11):
    """The Gaussian q that minimises KL(q || posterior): its precision is the prior's plus the
    expected Hessians, and its mean balances the expected gradients (Opper and Archambeau 2009).

    With ``rule=MODE`` the Laplace approximation.  Returns the moments, lag-one covariances, and the
    bound E_q[log p(y | s)] - KL(q || prior).
    """
    n, d = len(Y), len(model["mean"])
    rule = rule or hermite_rule(d)
    mu, prior = prior_moments(model, n)
    J0 = np.linalg.inv(prior)
    log_det0 = np.linalg.slogdet(J0)[1]

    def evaluate(mean, cov):
        blocks = np.array([cov[t * d : t * d + d, t * d : t * d + d] for t in range(n)])
        value, g, H = expected_words(model, Y, mean.reshape(n, d), blocks, rule)
        spread = np.trace(J0 @ cov) if len(rule[1]) > 1 else n * d
        log_det = np.linalg.slogdet(cov)[1] if len(rule[1]) > 1 else 0.0
        bound = value.sum() - 0.5 * (
            spread - n * d - log_det0 - log_det + (mean - mu) @ J0 @ (mean - mu)
        )
        return bound, g, H, blocks

    mean, cov = mu.copy(), prior.copy()
    H, h = np.zeros((n, d, d)), np.zeros((n, d))
    bound = -np.inf
    for _ in range(max_iter):
        now, g, new_H, _ = evaluate(mean, cov)
        new_h = g + np.einsum("tij,tj->ti", new_H, mean.reshape(n, d))
        size = 1.0
        while True:
            H_try, h_try = H + size * (new_H - H), h + size * (new_h - h)
            cov_try = np.linalg.inv(J0 + block_diag(*H_try))
            mean_try = cov_try @ (J0 @ mu + h_try.ravel())
            value = evaluate(mean_try, cov_try)[0]
            if value >= now - 1e-13 * abs(now) or size < 1e-6:
                break
            size /= 2
        H, h, mean, cov = H_try, h_try, mean_try, cov_try
        if abs(value - bound) < tol * max(1, abs(value)):
            break
        bound = value
    bound, g, H, blocks = evaluate(mean, cov)
    lag = np.zeros((n, d, d))
    for t in range(1, n):
        lag[t] = cov[t * d : t * d + d, (t - 1) * d : t * d]
    laplace = None
    if len(rule[1]) == 1:  # the Laplace log-likelihood
        laplace = (
            expected_words(model, Y, mean.reshape(n, d), blocks, rule)[0].sum()
            - 0.5 * (mean - mu) @ J0 @ (mean - mu)
            + 0.5 * log_det0
            + 0.5 * np.linalg.slogdet(cov)[1]
        )
    return SimpleNamespace(
        means=mean.reshape(n, d), covariances=blocks, lag_one=lag, bound=bound,
        mean=mean, covariance=cov, log_likelihood=laplace,
    )  # fmt: skip


def em_step(model, sequences, posteriors, rule, *, alpha=0.0, prior_b=None, learn_covariance=True):
    """One M-step by plain sums and a general optimiser, Gamma free; the penalty is
    alpha / 2 (tr(B Gamma_old B') + |b - prior_b|^2), as (B, b) is maximised before Gamma."""
    B, b = model["B"], model["b"]
    V, d = B.shape
    before, after, lag = (np.zeros((d, d)) for _ in range(3))
    for q in posteriors:
        n = len(q.means)
        for t in range(1, n):
            before += q.covariances[t - 1] + np.outer(q.means[t - 1], q.means[t - 1])
            after += q.covariances[t] + np.outer(q.means[t], q.means[t])
            lag += q.lag_one[t] + np.outer(q.means[t], q.means[t - 1])
    count = sum(len(q.means) - 1 for q in posteriors)
    A = lag @ np.linalg.inv(before)
    Q = (after - A @ lag.T) / count
    mean = np.mean([q.means[0] for q in posteriors], axis=0)
    covariance = np.mean(
        [q.covariances[0] + np.outer(q.means[0] - mean, q.means[0] - mean) for q in posteriors],
        axis=0,
    )
    prior_b = np.zeros(V) if prior_b is None else prior_b
    nodes, weights = rule if len(rule[1]) > 1 else (np.zeros((1, d)), rule[1])

    def loss(theta):
        one = {"B": theta[: V * d].reshape(V, d), "b": theta[V * d :]}
        value = -0.5 * alpha * (
            np.trace(one["B"] @ model["Q"] @ one["B"].T) + ((one["b"] - prior_b) ** 2).sum()
        )
        slope = np.zeros((V, d + 1))
        for Y, q in zip(sequences, posteriors):
            roots = np.linalg.cholesky(q.covariances)
            for node, weight in zip(nodes, weights):
                x = q.means + roots @ node
                log_p = log_softmax(x @ one["B"].T + one["b"])
                value += weight * (Y * log_p).sum()
                error = Y - Y.sum(1, keepdims=True) * np.exp(log_p)
                slope[:, :d] += weight * error.T @ x
                slope[:, d] += weight * error.sum(0)
        slope[:, :d] -= alpha * one["B"] @ model["Q"]
        slope[:, d] -= alpha * (one["b"] - prior_b)
        return -value, -np.concatenate([slope[:, :d].ravel(), slope[:, d]])

    found = minimize(
        loss, np.concatenate([B.ravel(), b]), jac=True, method="L-BFGS-B",
        options={"maxiter": 500, "ftol": 1e-14, "gtol": 1e-7},
    ).x  # fmt: skip
    new = {
        "A": A, "Q": (Q + Q.T) / 2, "B": found[: V * d].reshape(V, d), "b": found[V * d :],
        "mean": mean, "covariance": covariance if learn_covariance else model["covariance"],
    }  # fmt: skip
    return new


def transformed(model, T):
    """The same model of the states T S."""
    inverse = np.linalg.inv(T)
    return {
        "A": T @ model["A"] @ inverse, "Q": T @ model["Q"] @ T.T, "B": model["B"] @ inverse,
        "b": model["b"], "mean": T @ model["mean"], "covariance": T @ model["covariance"] @ T.T,
    }  # fmt: skip


def signal_strength(model):
    """Singular values of the centred B where the stationary covariance is I, decreasing."""
    P = solve_discrete_lyapunov(model["A"], model["Q"])
    B = model["B"] - model["B"].mean(0)
    return np.linalg.svd(B @ np.linalg.cholesky(P), compute_uv=False)
