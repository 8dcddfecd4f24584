"""Hidden Markov models, from commit to commit: score, predict and EM on three shapes."""

import warnings

import numpy as np

from sklseq import CategoricalHMM, GaussianHMM, PoissonHMM

SHAPES = {  # name -> (n_components, n_features, n_sequences, n_steps)
    "one long sequence": (5, 3, 1, 100_000),
    "many short sequences": (10, 5, 1000, 100),
    "many states": (50, 10, 20, 1000),
}


def chain(n_components, rng):
    transmat = rng.dirichlet(np.full(n_components, 0.5), n_components)
    return {
        "startprob": np.full(n_components, 1 / n_components),
        "transmat": (transmat + np.eye(n_components)) / 2,
    }


class Gaussian:
    """Gaussian emissions."""

    params = (list(SHAPES), ["diag", "full"])
    param_names = ("shape", "covariance_type")

    def setup(self, shape, covariance_type):
        n_components, n_features, n_sequences, n_steps = SHAPES[shape]
        rng = np.random.default_rng(0)
        covars = np.ones((n_components, n_features))
        if covariance_type == "full":
            covars = covars[:, :, None] * np.eye(n_features)
        self.model = GaussianHMM.from_parameters(
            **chain(n_components, rng),
            means=rng.normal(size=(n_components, n_features)),
            covars=covars,
            covariance_type=covariance_type,
            random_state=0,
        )
        self.X, _ = self.model.sample(n_steps, n_sequences=n_sequences)
        self.start = {
            f"{name}_init": getattr(self.model, f"{name}_")
            for name in ("startprob", "transmat", "means", "covars")
        }

    def time_score(self, shape, covariance_type):
        self.model.score(self.X)

    def time_predict(self, shape, covariance_type):
        self.model.predict(self.X)

    def time_fit_ten_iterations(self, shape, covariance_type):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            type(self.model)(
                self.model.n_components, covariance_type=covariance_type, max_iter=10, tol=0.0,
                **self.start,
            ).fit(self.X)  # fmt: skip

    def peakmem_score(self, shape, covariance_type):
        self.model.score(self.X)


class Discrete:
    """Symbols and counts: 1000 sequences of 100 steps, ten states."""

    params = (["categorical", "poisson"],)
    param_names = ("family",)

    def setup(self, family):
        rng = np.random.default_rng(0)
        if family == "categorical":
            self.model = CategoricalHMM.from_parameters(
                **chain(10, rng), emissionprob=rng.dirichlet(np.ones(50), 10), random_state=0
            )
        else:
            self.model = PoissonHMM.from_parameters(
                **chain(10, rng), rates=rng.gamma(2.0, 5.0, (10, 1)), random_state=0
            )
        self.X, _ = self.model.sample(100, n_sequences=1000)

    def time_score(self, family):
        self.model.score(self.X)

    def time_predict(self, family):
        self.model.predict(self.X)


class Tiny:
    """A hundred rows: what a call costs besides the work."""

    def setup(self):
        rng = np.random.default_rng(0)
        self.X = rng.normal(size=(100, 2))
        self.model = GaussianHMM(5, random_state=0, max_iter=50, tol=1e-3).fit(self.X)

    def time_score(self):
        self.model.score(self.X)

    def time_predict(self):
        self.model.predict(self.X)
