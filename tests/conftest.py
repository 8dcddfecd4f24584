"""What every test file shares: seeds, hypothesis settings, the list of families."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

CLONE = Path(__file__).resolve().parents[1]
if not list((CLONE / "sklseq").glob("_gaussian_density.*.[sp][oy]*")):
    # `python -m pytest` puts the clone first on the path; where its kernels are not compiled, the
    # installed package is tested, as by `pytest`
    sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != CLONE]

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from references import FAMILIES

import sklseq


def pytest_configure(config):
    # here and not in pyproject.toml, which an installed package is tested without
    config.addinivalue_line("markers", "examples: runs the gallery, a minute or two")
    # `nohup pytest &`, cron and some containers ignore Ctrl-C, and their children inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)


settings.register_profile(
    "sklseq",
    derandomize=True,
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("sklseq")



def pytest_report_header():
    return f"sklseq {sklseq.__version__} from {Path(sklseq.__file__).parent}"


SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def rng():
    return np.random.default_rng(20240229)


@pytest.fixture(params=FAMILIES, ids=lambda family: family.name)
def family(request):
    return request.param


@pytest.fixture
def shared_data():
    """The folder of larger data beside the checkout; tests that need it skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the data beside the checkout: no folder {SHARED_DATA}")
    return SHARED_DATA


ESTIMATORS = {
    "gaussian": "GaussianHMM",
    "categorical": "CategoricalHMM",
    "poisson": "PoissonHMM",
}


def estimator_class(family):
    """The public class of one of the families of references.py."""
    return getattr(sklseq, ESTIMATORS[family.name.split("-")[0]])


@pytest.fixture
def known(family):
    """Build a fitted estimator of the family from known parameters."""

    def build(parameters, **params):
        return estimator_class(family).from_parameters(
            **parameters, **family.estimator_parameters, **params
        )

    return build


@pytest.fixture
def started(family):
    """Build an estimator that starts EM at the parameters given and has not been fitted."""

    def build(parameters, **params):
        starts = {f"{name}_init": value for name, value in parameters.items()}
        return estimator_class(family)(
            n_components=len(parameters["startprob"]),
            **starts,
            **family.estimator_parameters,
            **params,
        )

    return build


def fitted_parameters(estimator, names):
    """The fitted attributes by their names without the underscore."""
    return {name: getattr(estimator, f"{name}_") for name in names}
