"""Slow, obvious references for the linear-Gaussian chain: nothing here knows a recursion trick.

``joint`` writes the whole sequence as one Gaussian vector and conditions it by a Schur
complement; ``mpmath_smoother`` runs the textbook filter and Rauch-Tung-Striebel smoother in as
many digits as asked; ``oracle_m_step`` loops over the steps of the expected complete-data
regression.  A *model* is a plain dict: A, Q, B, R, offset, mean, covariance; A, Q, B and R may
carry a leading time axis (entry t of A and Q leads into step t); ``drift`` (n, d) is added to the
state at step t.
"""

from types import SimpleNamespace

import mpmath
import numpy as np
import scipy.linalg


def random_model(seed, d, p, *, radius=0.9, diag=False):
    """A stable random model of d states and p features."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(d, d))
    A *= radius / np.abs(np.linalg.eigvals(A)).max()

    def spd(n):
        root = rng.normal(size=(n, n)) / np.sqrt(n)
        return root @ root.T + 0.3 * np.eye(n)

    R = np.diag(rng.uniform(0.3, 1.5, p)) if diag else spd(p)
    return {
        "A": A, "Q": spd(d), "B": rng.normal(size=(p, d)), "R": R,
        "offset": rng.normal(size=p), "mean": rng.normal(size=d), "covariance": spd(d),
    }  # fmt: skip


def simulate(model, n, seed, missing=0.0):
    """One sequence of n steps, a share of its entries lost."""
    rng = np.random.default_rng(seed)
    p, d = model["B"].shape
    s = rng.multivariate_normal(model["mean"], model["covariance"])
    X, S = np.empty((n, p)), np.empty((n, d))
    for t in range(n):
        if t:
            s = model["A"] @ s + rng.multivariate_normal(np.zeros(d), model["Q"])
        S[t] = s
        X[t] = model["B"] @ s + model["offset"] + rng.multivariate_normal(np.zeros(p), model["R"])
    X[rng.uniform(size=X.shape) < missing] = np.nan
    return X, S


def at(matrix, t):
    return matrix if matrix.ndim == 2 else matrix[t]


def block_diagonal(matrix, n):
    """Block diagonal of n steps."""
    return scipy.linalg.block_diag(*(at(matrix, t) for t in range(n)))


def joint(model, X, drift=None):
    """Condition the joint Gaussian of (S_1..S_n, X_1..X_n) on the entries of X that are there.

    Returns log_likelihood, means (n, d), covariances (n, d, d), lag_one (n, d, d) with
    Cov(S_t, S_t-1) at t and zero at the first, and the full posterior ``mean``, ``covariance``.
    """
    n = len(X)
    d = model["A"].shape[-1]
    drift = np.zeros((n, d)) if drift is None else drift
    mean = np.zeros((n, d))
    cov = np.zeros((n, n, d, d))
    mean[0], cov[0, 0] = model["mean"], model["covariance"]
    for t in range(1, n):
        A = at(model["A"], t)
        mean[t] = A @ mean[t - 1] + drift[t]
        for s in range(t):
            cov[t, s] = A @ cov[t - 1, s]
            cov[s, t] = cov[t, s].T
        cov[t, t] = A @ cov[t - 1, t - 1] @ A.T + at(model["Q"], t)
    prior = cov.transpose(0, 2, 1, 3).reshape(n * d, n * d)
    big_B = block_diagonal(model["B"], n)
    seen = ~np.isnan(X).ravel()
    H = big_B[seen]
    noise = block_diagonal(model["R"], n)[np.ix_(seen, seen)]
    residual = (X - model["offset"]).ravel()[seen] - H @ mean.ravel()
    F = H @ prior @ H.T + noise
    cross = prior @ H.T
    posterior_mean = mean.ravel() + cross @ np.linalg.solve(F, residual)
    posterior = prior - cross @ np.linalg.solve(F, cross.T)
    log_likelihood = -0.5 * (
        seen.sum() * np.log(2 * np.pi)
        + np.linalg.slogdet(F)[1]
        + residual @ np.linalg.solve(F, residual)
    )
    blocks = posterior.reshape(n, d, n, d).transpose(0, 2, 1, 3)
    lag_one = np.zeros((n, d, d))
    for t in range(1, n):
        lag_one[t] = blocks[t, t - 1]
    return SimpleNamespace(
        log_likelihood=log_likelihood,
        means=posterior_mean.reshape(n, d),
        covariances=np.array([blocks[t, t] for t in range(n)]),
        lag_one=lag_one,
        mean=posterior_mean,
        covariance=posterior,
    )


def filtered(model, X, drift=None):
    """Causal moments: the joint posterior of each prefix, and each step's log-density."""
    n = len(X)
    d = model["A"].shape[-1]
    means, covariances, log_density = np.empty((n, d)), np.empty((n, d, d)), np.empty(n)
    before = 0.0
    for t in range(n):
        prefix = joint(model, X[: t + 1], None if drift is None else drift[: t + 1])
        means[t], covariances[t] = prefix.means[t], prefix.covariances[t]
        log_density[t] = prefix.log_likelihood - before
        before = prefix.log_likelihood
    return means, covariances, log_density


def mpmath_smoother(model, X, digits=80):
    """Textbook filter and smoother in ``digits`` decimal digits (NaN entries are left out).

    Returns log_likelihood, means, covariances, lag_one as float64 arrays.
    """
    with mpmath.workdps(digits):
        A, Q, B, R, P = (
            mpmath.matrix(np.atleast_2d(model[key]).tolist())
            for key in ("A", "Q", "B", "R", "covariance")
        )
        m = mpmath.matrix(np.asarray(model["mean"]).tolist())
        offset = [mpmath.mpf(float(value)) for value in model["offset"]]
        d = A.rows
        log_likelihood = mpmath.mpf(0)
        filtered_path, predicted_path = [], []
        for row in X:
            predicted_path.append((m, P))
            seen = [j for j in range(len(row)) if not np.isnan(row[j])]
            for count, j in enumerate(seen):
                # one observation at a time is exact when R is diagonal
                assert count == 0 or all(R[j, i] == 0 for i in seen[:count])
                h = B[j, :]
                gain = P * h.T
                f = (h * gain)[0] + R[j, j]
                v = mpmath.mpf(float(row[j])) - offset[j] - (h * m)[0]
                m = m + gain * (v / f)
                P = P - gain * gain.T / f
                log_likelihood -= (mpmath.log(2 * mpmath.pi * f) + v * v / f) / 2
            filtered_path.append((m, P))
            m, P = A * m, A * P * A.T + Q
        n = len(X)
        means, covariances, lag_one = [None] * n, [None] * n, [mpmath.zeros(d)] * n
        means[-1], covariances[-1] = filtered_path[-1]
        for t in range(n - 2, -1, -1):
            m, P = filtered_path[t]
            m_next, P_next = predicted_path[t + 1]
            gain = P * A.T * P_next**-1
            means[t] = m + gain * (means[t + 1] - m_next)
            lag_one[t + 1] = covariances[t + 1] * gain.T
            covariances[t] = P + gain * (covariances[t + 1] - P_next) * gain.T

        def floats(items):
            return np.array(
                [[[float(value) for value in row] for row in m.tolist()] for m in items]
            )

        return SimpleNamespace(
            log_likelihood=float(log_likelihood),
            means=floats(means)[:, :, 0],
            covariances=floats(covariances),
            lag_one=floats(lag_one),
        )


def oracle_m_step(model, sequences, *, diag, learn_covariance, inputs=None, inputs_to="state",
                  coefficients=None):  # fmt: skip
    """One full M-step by loops over the dense joint posterior: every parameter learned.

    With inputs, the state's (or the observation's) regression gains the columns u_t and the
    result a ``coefficients``.  Missing entries enter by their conditional expectation given the
    state and the entries that are there.
    """
    p, d = model["B"].shape
    q = 0 if inputs is None else inputs[0].shape[1]
    to_state = inputs_to == "state"
    qs, qo = (q, 0) if to_state else (0, q)
    zz, sz, ss = np.zeros((d + qs, d + qs)), np.zeros((d, d + qs)), np.zeros((d, d))
    h = d + 1 + qo
    hh, xh, xx = np.zeros((h, h)), np.zeros((p, h)), np.zeros((p, p))
    hh_feature, count = np.zeros((p, h, h)), np.zeros(p)
    n_transitions = n_rows = 0
    firsts, first_covariances = [], []
    for index, X in enumerate(sequences):
        u = np.zeros((len(X), 0)) if inputs is None else inputs[index]
        drift, shift = None, np.zeros_like(X)
        if q and to_state:
            drift = u @ coefficients.T
        elif q:
            shift = u @ coefficients.T
        post = joint(model, X - shift, drift)
        firsts.append(post.means[0])
        first_covariances.append(post.covariances[0])
        for t in range(len(X)):
            m, P = post.means[t], post.covariances[t]
            if t:
                before = post.means[t - 1]
                z = np.r_[before, u[t] if to_state else []]
                block = np.outer(z, z)
                block[:d, :d] += post.covariances[t - 1]
                zz += block
                cross = np.outer(m, z)
                cross[:, :d] += post.lag_one[t]
                sz += cross
                ss += np.outer(m, m) + P
                n_transitions += 1
            seen = ~np.isnan(X[t])
            if not seen.any():
                continue
            n_rows += 1
            constant = np.r_[1.0, u[t] if not to_state else []]
            mean_h = np.r_[m, constant]
            E_hh = np.outer(mean_h, mean_h)
            E_hh[:d, :d] += P
            if diag:
                for j in np.flatnonzero(seen):
                    hh_feature[j] += E_hh
                    xh[j] += X[t, j] * mean_h
                    xx[j, j] += X[t, j] ** 2
                    count[j] += 1
                continue
            # x = c + M S + noise, the noise only on what is missing
            R, B = model["R"], model["B"]
            base = model["offset"] + shift[t]
            M, c, V = np.zeros((p, d)), np.where(seen, X[t], 0.0), np.zeros((p, p))
            lost = ~seen
            if lost.any():
                gain = R[np.ix_(lost, seen)] @ np.linalg.inv(R[np.ix_(seen, seen)])
                M[lost] = B[lost] - gain @ B[seen]
                c[lost] = base[lost] + gain @ (X[t] - base)[seen]
                V[np.ix_(lost, lost)] = (
                    R[np.ix_(lost, lost)] - gain @ R[np.ix_(seen, lost)]
                )
            E_x = c + M @ m
            hh += E_hh
            xh += np.outer(E_x, mean_h)
            xh[:, :d] += M @ P
            xx += np.outer(E_x, E_x) + M @ P @ M.T + V
    coef_state = np.linalg.solve(zz, sz.T).T
    Q = (ss - coef_state @ sz.T) / n_transitions
    if diag:
        coef = np.array([np.linalg.solve(hh_feature[j], xh[j]) for j in range(p)])
        R = np.diag([(xx[j, j] - coef[j] @ xh[j]) / count[j] for j in range(p)])
    else:
        coef = np.linalg.solve(hh, xh.T).T
        R = (xx - coef @ xh.T) / n_rows
    mean = np.mean(firsts, axis=0)
    covariance = model["covariance"]
    if learn_covariance:
        covariance = np.mean(
            [P + np.outer(m - mean, m - mean) for m, P in zip(firsts, first_covariances)], axis=0
        )
    return {
        "A": coef_state[:, :d], "Q": (Q + Q.T) / 2, "B": coef[:, :d], "R": (R + R.T) / 2,
        "offset": coef[:, d], "mean": mean, "covariance": covariance,
        "coefficients": coef_state[:, d:] if to_state else coef[:, d + 1 :],
    }  # fmt: skip


def exact_smoother(model, X, digits=100):
    """Filter and smoother in ``digits`` decimal digits that divide by nothing but variances of
    scalar observations, so that every covariance may be singular (Durbin and Koopman 2012,
    sections 4.4 and 6.4).  A variance below 1e-60 is one of what is known already.

    Returns log_likelihood, means, covariances, lag_one, noise_means and noise_covariances (of the
    disturbance that leads into each step) as float64 arrays; skipped, the observations of what was
    known.
    """

    def exact(array):
        return np.vectorize(mpmath.mpf, otypes=[object])(np.asarray(array, dtype=float))

    with mpmath.workdps(digits):
        A, Q, B, R, P, m, offset = (
            exact(model[key]) for key in ("A", "Q", "B", "R", "covariance", "mean", "offset")
        )
        d, known, skipped = len(m), mpmath.mpf(10) ** -60, 0
        identity, total, path = exact(np.eye(d)), mpmath.mpf(0), []
        for t, row in enumerate(X):
            if t:
                m, P = A.dot(m), A.dot(P).dot(A.T) + Q
            predicted, updates = (m, P), []
            seen = ~np.isnan(row)
            y, H, noise = _uncorrelated(exact(row[seen]) - offset[seen], B[seen], R, seen, known)
            for value, h, r in zip(y, H, noise):
                f = h.dot(P).dot(h) + r
                if f < known:
                    skipped += 1
                    continue
                gain, v = P.dot(h) / f, value - h.dot(m)
                total -= (mpmath.log(2 * mpmath.pi * f) + v * v / f) / 2
                updates.append((h, f, v, identity - np.outer(gain, h)))
                m, P = m + gain * v, P - np.outer(gain, gain) * f
            path.append((*predicted, P, updates))
        score, information = exact(np.zeros(d)), exact(np.zeros((d, d)))
        means, covariances, lag_one, noise_means, noise_covariances = [], [], [], [], []
        for t in range(len(X) - 1, -1, -1):
            m, P, _, updates = path[t]
            for h, f, v, L in reversed(updates):
                score = h * (v / f) + L.T.dot(score)
                information = np.outer(h, h) / f + L.T.dot(information).dot(L)
            means.append(m + P.dot(score))
            covariances.append(P - P.dot(information).dot(P))
            before = path[t - 1][2] if t else 0 * P
            noise_means.append(Q.dot(score))
            noise_covariances.append(Q - Q.dot(information).dot(Q))
            lag_one.append((identity - P.dot(information)).dot(A).dot(before))
            score, information = A.T.dot(score), A.T.dot(information).dot(A)
        return SimpleNamespace(
            log_likelihood=float(total), means=np.array(means[::-1], dtype=float),
            covariances=np.array(covariances[::-1], dtype=float),
            lag_one=np.array(lag_one[::-1], dtype=float),
            noise_means=np.array(noise_means[::-1], dtype=float),
            noise_covariances=np.array(noise_covariances[::-1], dtype=float), skipped=skipped,
        )  # fmt: skip


def _uncorrelated(y, H, R, seen, known):
    """L^-1 y, L^-1 H and D where L D L' is the covariance of the entries seen."""
    R = R[np.ix_(seen, seen)].copy()
    y, H, noise = y.copy(), H.copy(), []
    for j in range(len(y)):
        pivot = R[j, j]
        noise.append(pivot if pivot > known else mpmath.mpf(0))
        for i in range(j + 1, len(y)):
            factor = R[i, j] / pivot if pivot > known else mpmath.mpf(0)
            R[i] = R[i] - factor * R[j]
            y[i], H[i] = y[i] - factor * y[j], H[i] - factor * H[j]
    return y, H, noise


def expected_log_density(old, new, sequences, inputs=None):
    """E[log p(S, X) under `new` | X under `old`] by loops over the dense joint posterior.

    Inputs enter by the keys ``to_state`` (d, q) and ``to_observation`` (p, q).  What is missing of
    X is left out of the density.
    """
    total = 0.0

    def log_density(noise, second):
        """Of a residual with E[r r'] = second, in the directions that have noise."""
        values, vectors = np.linalg.eigh(noise)
        used = values > 1e-13 * max(values[-1], 1e-300)
        rotated = np.einsum("ij,ik,kj->j", vectors, second, vectors)[used]
        return -0.5 * (np.log(2 * np.pi * values[used]).sum() + (rotated / values[used]).sum())

    for i, X in enumerate(sequences):
        n, p = X.shape
        d = len(old["mean"])

        def effects(model, u=None if inputs is None else inputs[i], n=n, d=d, p=p):
            result = [np.zeros((n, d)), np.zeros((n, p))]
            for effect, name in zip(result, ("to_state", "to_observation")):
                if u is not None and name in model:
                    effect += u @ model[name].T
            return result

        drift, shift = effects(old)
        post = joint(old, X - shift, drift)
        drift, shift = effects(new)
        m, P = post.means, post.covariances
        first = m[0] - new["mean"]
        total += log_density(new["covariance"], P[0] + np.outer(first, first))
        for t in range(n):
            if t:
                A = at(new["A"], t)
                w = m[t] - A @ m[t - 1] - drift[t]
                lag = post.lag_one[t]
                spread = P[t] - A @ lag.T - lag @ A.T + A @ P[t - 1] @ A.T
                total += log_density(at(new["Q"], t), spread + np.outer(w, w))
            seen = ~np.isnan(X[t])
            if seen.any():
                B, R = at(new["B"], t)[seen], at(new["R"], t)[np.ix_(seen, seen)]
                r = (X[t] - new["offset"] - shift[t])[seen] - B @ m[t]
                total += log_density(R, B @ P[t] @ B.T + np.outer(r, r))
    return total
