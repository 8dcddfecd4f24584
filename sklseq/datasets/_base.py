"""Loaders of the series in ``data/``; each description names the source of its numbers."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import numpy as np
from sklearn.utils import Bunch

NILE = """\
Annual flow of the Nile at Aswan, 1871-1970
-------------------------------------------

:Steps: 100, one a year, one sequence
:Feature: flow, in 1e8 cubic metres
:Missing values: none

The flow drops by about a fifth near 1898, when the first Aswan dam was begun and the rains over
East Africa grew weaker.

Source: G. W. Cobb (1978), "The problem of the Nile: conditional solution to a change-point
problem", Biometrika 65, 243-251, Table 1. Used throughout J. Durbin and S. J. Koopman (2012),
Time Series Analysis by State Space Methods, 2nd edition, Oxford, chapter 2.
"""

EARTHQUAKES = """\
Major earthquakes of the world, 1900-2006
-----------------------------------------

:Steps: 107, one a year, one sequence
:Feature: count, the number of earthquakes of magnitude 7 or greater
:Missing values: none
:Mean: 19.36
:Variance: 51.57, far above the mean, as no single Poisson distribution allows

Source: W. Zucchini and I. L. MacDonald (2009), Hidden Markov Models for Time Series: An
Introduction Using R, Chapman & Hall/CRC, Table 1.1; the counts are those of the United States
Geological Survey.
"""

SEIZURES = """\
Epileptic seizures of 59 patients over four visits
--------------------------------------------------

:Sequences: 59, one a patient
:Steps: 236, four a patient, each of two weeks
:Feature: seizures, the number of seizures in the two weeks before the visit
:Missing values: none
:Target: treated, one a step: 1 for progabide, 0 for placebo

A clinical trial: 28 patients had placebo, 31 had progabide, each beside standard treatment.

Source: P. F. Thall and S. C. Vail (1990), "Some covariance models for longitudinal count data with
overdispersion", Biometrics 46, 657-671, Table 2. Third visit of patient 8: 21, as in the data
set epil of the R package MASS; some copies have 23.
"""


def _read(name: str) -> tuple[list[str], np.ndarray]:
    """Column names and values of ``data/<name>.csv``."""
    text = files("sklseq.datasets").joinpath(f"data/{name}.csv").read_text(encoding="utf-8")
    header, *lines = text.split()
    return header.split(","), np.array([line.split(",") for line in lines], dtype=np.float64)


def _as_frame(data: np.ndarray, names: list[str], index: np.ndarray, index_name: str) -> Any:
    try:
        import pandas
    except ImportError as error:
        raise ImportError("as_frame=True needs pandas: pip install pandas") from error
    return pandas.DataFrame(data, columns=names, index=pandas.Index(index, name=index_name))


def _load_yearly_series(
    name: str, description: str, return_X_y: bool, as_frame: bool
) -> Bunch | tuple[Any, None]:
    """A series with one value a year, in the file's columns ``year`` and one feature."""
    names, table = _read(name)
    years, data = table[:, 0].astype(np.int64), table[:, 1:]
    frame = _as_frame(data, names[1:], years, "year") if as_frame else None
    if return_X_y:
        return (data if frame is None else frame), None
    return Bunch(
        data=data if frame is None else frame,
        frame=frame,
        target=None,
        years=years,
        feature_names=names[1:],
        DESCR=description,
        source=_source(description),
    )


def _source(description: str) -> str:
    return " ".join(description.split("Source: ")[1].split())


def load_nile(*, return_X_y: bool = False, as_frame: bool = False) -> Bunch | tuple[Any, None]:
    """Load the annual flow of the Nile at Aswan, 1871-1970.

    Parameters
    ----------
    return_X_y : bool, default=False
        Whether to return ``(data, None)`` instead of a Bunch; there is no target.
    as_frame : bool, default=False
        Whether ``data`` is a pandas DataFrame indexed by year.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        With the following attributes.

        data : ndarray or DataFrame of shape (100, 1)
            The flow of each year, in 1e8 cubic metres.
        frame : DataFrame of shape (100, 1) or None
            The same as a DataFrame, where ``as_frame=True``.
        target : None
            There is none.
        years : ndarray of shape (100,)
            1871 to 1970.
        feature_names : list of str
            ``["flow"]``.
        DESCR : str
            What the numbers are.
        source : str
            Where they come from.
    (data, None) : tuple if ``return_X_y`` is True

    Raises
    ------
    ImportError
        If ``as_frame=True`` and pandas is not installed.

    References
    ----------
    G. W. Cobb (1978), "The problem of the Nile", Biometrika 65, 243-251, Table 1.

    Examples
    --------
    >>> from sklseq.datasets import load_nile
    >>> nile = load_nile()
    >>> nile.data.shape
    (100, 1)
    >>> nile.data[:3, 0]
    array([1120., 1160.,  963.])
    """
    return _load_yearly_series("nile", NILE, return_X_y, as_frame)


def load_earthquakes(
    *, return_X_y: bool = False, as_frame: bool = False
) -> Bunch | tuple[Any, None]:
    """Load the yearly number of earthquakes of magnitude 7 or greater, 1900-2006.

    Parameters
    ----------
    return_X_y : bool, default=False
        Whether to return ``(data, None)`` instead of a Bunch; there is no target.
    as_frame : bool, default=False
        Whether ``data`` is a pandas DataFrame indexed by year.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        With the following attributes.

        data : ndarray or DataFrame of shape (107, 1)
            The number of earthquakes in each year.
        frame : DataFrame of shape (107, 1) or None
            The same as a DataFrame, where ``as_frame=True``.
        target : None
            There is none.
        years : ndarray of shape (107,)
            1900 to 2006.
        feature_names : list of str
            ``["count"]``.
        DESCR : str
            What the numbers are.
        source : str
            Where they come from.
    (data, None) : tuple if ``return_X_y`` is True

    Raises
    ------
    ImportError
        If ``as_frame=True`` and pandas is not installed.

    References
    ----------
    W. Zucchini and I. L. MacDonald (2009), Hidden Markov Models for Time Series, Chapman &
    Hall/CRC, Table 1.1.

    Examples
    --------
    >>> from sklseq.datasets import load_earthquakes
    >>> earthquakes = load_earthquakes()
    >>> earthquakes.data.shape
    (107, 1)
    >>> print(earthquakes.years[earthquakes.data[:, 0].argmax()])
    1943
    """
    return _load_yearly_series("earthquakes", EARTHQUAKES, return_X_y, as_frame)


def load_seizures(
    *, return_X_y: bool = False, as_frame: bool = False
) -> Bunch | tuple[Any, Any]:
    """Load the seizure counts of 59 epileptic patients over four visits.

    Several sequences: the rows of one patient are one sequence. Pass ``groups=data.patients``
    beside ``data.data``, or give ``data.sequences``, a list with one array a patient.

    Parameters
    ----------
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of a Bunch.
    as_frame : bool, default=False
        Whether ``data`` is a pandas DataFrame indexed by patient, and ``target`` a Series.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        With the following attributes.

        data : ndarray or DataFrame of shape (236, 1)
            The number of seizures in the two weeks before each visit.
        target : ndarray or Series of shape (236,)
            1 where the patient had progabide, 0 where placebo.
        frame : DataFrame of shape (236, 2) or None
            Both, where ``as_frame=True``.
        patients : ndarray of shape (236,)
            1 to 59: the label of each row's sequence, for ``groups=``.
        sequences : list of 59 ndarray of shape (4, 1)
            The rows of ``data`` cut by patient.
        feature_names : list of str
            ``["seizures"]``.
        DESCR : str
            What the numbers are.
        source : str
            Where they come from.
    (data, target) : tuple if ``return_X_y`` is True

    Raises
    ------
    ImportError
        If ``as_frame=True`` and pandas is not installed.

    References
    ----------
    P. F. Thall and S. C. Vail (1990), "Some covariance models for longitudinal count data with
    overdispersion", Biometrics 46, 657-671, Table 2.

    Examples
    --------
    >>> from sklseq.datasets import load_seizures
    >>> seizures = load_seizures()
    >>> len(seizures.sequences), seizures.sequences[0].shape
    (59, (4, 1))
    """
    names, table = _read("seizures")
    patients, treated = table[:, 0].astype(np.int64), table[:, 2].astype(np.int64)
    values = table[:, 3:]
    data: Any = values
    target: Any = treated
    frame = None
    if as_frame:
        frame = _as_frame(values, names[3:], patients, "patient")
        data = frame.copy()
        frame[names[2]] = treated
        target = frame[names[2]]
    if return_X_y:
        return data, target
    starts = np.flatnonzero(np.diff(patients)) + 1
    return Bunch(
        data=data,
        target=target,
        frame=frame,
        patients=patients,
        sequences=np.split(values, starts),
        feature_names=names[3:],
        DESCR=SEIZURES,
        source=_source(SEIZURES),
    )
