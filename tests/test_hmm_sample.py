"""sample(after=, start_state=): draws that go on from what is known, against exact moments."""

import numpy as np
import pytest
from references import FAMILIES
from references_hmm_extra import EXTRA_FAMILIES
from test_hmm_known_states import class_of

from sklseq import GaussianHMM, PoissonHMM

TURN = {"startprob": [0.9, 0.1], "transmat": [[0.8, 0.2], [0.3, 0.7]]}


@pytest.mark.parametrize("family", FAMILIES + EXTRA_FAMILIES, ids=lambda family: family.name)
def test_draws_after_x_have_the_moments_of_the_forecast(family, rng):
    parameters = family.random_parameters(rng, 3, 2)
    model = class_of(family).from_parameters(**parameters, **family.estimator_parameters)
    X, _ = model.sample(15, random_state=1)
    forecast = model.forecast(X, 2)
    n = 4000
    draws, states = model.sample(2, after=X, n_sequences=n, random_state=0)
    frequencies = (np.array(states)[:, :, None] == np.arange(3)).mean(axis=0)
    np.testing.assert_allclose(frequencies, forecast.state_probabilities, atol=4 * 0.5 / n**0.5)
    if hasattr(forecast, "means"):
        error = 4 * np.std(draws, axis=0) / n**0.5
        assert np.all(np.abs(np.mean(draws, axis=0) - forecast.means) < error)
    else:
        probabilities = forecast.probabilities.reshape(2, -1, forecast.probabilities.shape[-1])
        values = np.array(draws)
        shares = (
            values.sum(axis=0)[:, None] / values.sum(axis=(0, 2))[:, None, None]
            if family in EXTRA_FAMILIES
            else (values[..., None] == np.arange(probabilities.shape[-1])).mean(axis=0)
        )
        np.testing.assert_allclose(shares, probabilities, atol=4 * 0.5 / n**0.5)


def test_a_given_first_state():
    model = GaussianHMM.from_parameters(**TURN, means=[[0.0], [50.0]], covars=[[1.0], [1.0]])
    draws, states = model.sample(2, start_state=1, n_sequences=2000, random_state=0)
    states = np.array(states)
    assert (states[:, 0] == 1).all()
    assert states[:, 1].mean() == pytest.approx(0.7, abs=0.04)
    assert np.mean(draws, axis=0)[0, 0] == pytest.approx(50.0, abs=0.1)
    X, path = model.sample(3, start_state=np.int8(0), random_state=0)
    assert X.shape == (3, 1)
    assert path[0] == 0


def test_draws_go_on_from_the_end_of_training_where_the_model_does(rng):
    X = rng.poisson(np.repeat([1, 30], 30))[:, None]
    model = PoissonHMM(
        2, rates_init=[[1.0], [30.0]], transmat_init=[[0.9, 0.1], [0.0, 1.0]], continues=True,
        startprob_init=[1.0, 0.0],
    ).fit(X)  # fmt: skip
    _, states = model.sample(5, after=[[31]], random_state=0)
    assert (states == 1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start_state": 2}, "start_state must be an integer from 0 to 1, got 2"),
        ({"start_state": -1}, "start_state must be an integer from 0 to 1, got -1"),
        ({"start_state": 0.0}, "start_state must be an integer from 0 to 1, got 0.0"),
        ({"start_state": 0, "after": [[1]]}, "after and start_state both"),
        ({"after": [[[1]], [[2]]]}, "after must be one sequence, got 2"),
        ({"after": [[0], [3]]}, "Nothing can come after: sequence 0 has probability zero"),
        ({"after": [[1, 2]]}, "features"),
    ],
)
def test_what_cannot_be_drawn_after(arguments, message):
    model = PoissonHMM.from_parameters(**TURN, rates=[[0.0], [0.0]])
    if "features" not in message and "Nothing" not in message:
        model = PoissonHMM.from_parameters(**TURN, rates=[[1.0], [2.0]])
    with pytest.raises(ValueError, match=message):
        model.sample(3, **arguments)
