"""scikit-learn's estimator checks for sequence models."""

from __future__ import annotations

from sklearn.utils import estimator_checks

__all__ = ["check_estimator", "expected_failed_checks"]

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
