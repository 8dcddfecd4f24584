"""scikit-learn's estimator checks for sequence models."""

from __future__ import annotations

import inspect
import sys

from sklearn.base import BaseEstimator
from sklearn.utils import estimator_checks

__all__ = ["check_estimator", "expected_failed_checks", "trusted_types"]

_SMOOTHES = (
    "a smoothed state depends on the neighbouring rows, so rows cannot be permuted or taken by "
    "themselves; whole sequences can, which the tests of sklseq check instead"
)


def expected_failed_checks(estimator) -> dict[str, str]:
    """The checks of scikit-learn's battery that an estimator cannot pass, with the reason.

    Parameters
    ----------
    estimator : estimator instance

    Returns
    -------
    dict of str -> str
        Empty for the HMMs, ``Stepwise``, ``TopicMixture`` and ``CharRNNClassifier``; the two
        row-invariance checks for ``KalmanSmoother`` and ``SoftmaxStateSpace``.

    Examples
    --------
    >>> from sklseq import GaussianHMM
    >>> from sklseq.utils import expected_failed_checks
    >>> expected_failed_checks(GaussianHMM())
    {}
    """
    if type(estimator).__module__.startswith("sklseq.state_space"):
        return {
            "check_methods_sample_order_invariance": _SMOOTHES,
            "check_methods_subset_invariance": _SMOOTHES,
        }
    return {}


def check_estimator(estimator, **kwargs):
    """scikit-learn's ``check_estimator`` with the expected failures of an estimator declared.

    The battery tests no behaviour over time: it sets ``n_components=1`` in the invariance checks.

    Parameters
    ----------
    estimator : estimator instance
    **kwargs
        As of ``sklearn.utils.estimator_checks.check_estimator``.

    Returns
    -------
    list of dict
        What scikit-learn's function returns.

    Examples
    --------
    >>> from sklseq import GaussianHMM
    >>> from sklseq.utils import check_estimator
    >>> results = check_estimator(GaussianHMM(), on_skip=None)
    >>> [result["check_name"] for result in results if result["status"] == "failed"]
    []
    """
    kwargs.setdefault("expected_failed_checks", expected_failed_checks(estimator))
    return estimator_checks.check_estimator(estimator, **kwargs)


def trusted_types() -> list[str]:
    """The names of the package's classes that a file of an estimator holds.

    For ``skops.io.load(file, trusted=trusted_types())``, which builds no class that it was not told
    to trust.  What an estimator keeps beside these are arrays, numbers, strings and containers.

    Returns
    -------
    list of str
        Sorted; the estimators by the modules that define them.

    Examples
    --------
    >>> from sklseq.utils import trusted_types
    >>> "sklseq.preprocessing.Stepwise" in trusted_types()
    True
    """
    public = vars(sys.modules[__package__]).values()
    estimators = {one for one in public if inspect.isclass(one) and issubclass(one, BaseEstimator)}
    return sorted(f"{one.__module__}.{one.__qualname__}" for one in estimators)
