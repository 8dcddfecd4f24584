"""State-space models, from commit to commit: score, smoothing and EM."""

import warnings

import numpy as np

from sklseq import KalmanSmoother, SoftmaxStateSpace

SHAPES = {  # name -> (n_components, n_features, n_sequences, n_steps)
    "one long sequence": (2, 1, 1, 100_000),
    "many short sequences": (4, 2, 1000, 100),
    "many dimensions": (16, 8, 1, 2000),
}


class Kalman:
    """Linear-Gaussian, complete and with a fifth of the entries missing."""

    params = (list(SHAPES), [0.0, 0.2])
    param_names = ("shape", "missing")

    def setup(self, shape, missing):
        n_components, n_features, n_sequences, n_steps = SHAPES[shape]
        rng = np.random.default_rng(0)
        turn, _ = np.linalg.qr(rng.normal(size=(n_components, n_components)))
        self.parameters = {
            "transition_matrix": 0.95 * turn,
            "transition_covariance": 0.1 * np.eye(n_components),
            "observation_matrix": rng.normal(size=(n_features, n_components)),
            "observation_offset": np.zeros(n_features),
            "observation_covariance": np.eye(n_features),
            "initial_state_mean": np.zeros(n_components),
            "initial_state_covariance": np.eye(n_components),
        }
        self.model = KalmanSmoother.from_parameters(**self.parameters)
        self.X, _ = self.model.sample(n_steps, n_sequences=n_sequences, random_state=0)
        for x in self.X:
            x[rng.random(x.shape) < missing] = np.nan

    def time_score(self, shape, missing):
        self.model.score(self.X)

    def time_predict(self, shape, missing):
        self.model.predict(self.X)

    def time_fit_three_iterations(self, shape, missing):
        start = {f"{name}_init": value for name, value in self.parameters.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            KalmanSmoother(
                self.model.n_components, max_iter=3, tol=0.0, acceleration=None, **start
            ).fit(self.X)

    def peakmem_score(self, shape, missing):
        self.model.score(self.X)


class Softmax:
    """One word a step: ten words, two dimensions."""

    def setup(self):
        rng = np.random.default_rng(0)
        self.model = SoftmaxStateSpace.from_parameters(
            transition_matrix=0.9 * np.eye(2),
            transition_covariance=0.19 * np.eye(2),
            observation_matrix=rng.normal(size=(10, 2)),
            observation_offset=np.zeros(10),
            initial_state_mean=np.zeros(2),
            initial_state_covariance=np.eye(2),
            random_state=0,
        )
        self.X, _ = self.model.sample(1000)

    def time_score(self):
        self.model.score(self.X)

    def time_predict(self):
        self.model.predict(self.X)
