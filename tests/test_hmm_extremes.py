"""HMMs at the ends of what a double can hold: outliers, zeros, gaps, huge scales and counts."""

import numpy as np
import pytest

from sklseq import GaussianHMM, GaussianMixtureHMM


@pytest.mark.parametrize("model", [GaussianHMM(2, max_iter=2), GaussianMixtureHMM(2, max_iter=2)])
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_values_whose_squares_overflow_are_named(model, missing):
    first, second = np.random.default_rng(0).normal(size=(2, 20, 2))
    first[0, 1] = np.nan if missing else 0.0
    model.fit([first, second])
    second[3, 1] = -1e160
    for method in (model.fit, model.score, model.predict, model.sample_posterior):
        with pytest.raises(ValueError, match=r"-1e\+160 at row 3 of sequence 1, column 1"):
            method([first, second])
    second[3, 1] = 1e150  # squares that a double can hold pass
    assert model.fit([first, second]).n_features_in_ == 2
