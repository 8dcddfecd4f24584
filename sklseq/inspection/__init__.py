"""Displays of sequence models, in scikit-learn's style.

Each has ``from_estimator``, ``from_predictions``, ``plot(ax=)``, and the drawn ``figure_`` and
``ax_``.  They need matplotlib, which sklseq itself does not.
"""

from sklseq.inspection._convergence import ConvergenceDisplay
from sklseq.inspection._smoother import SmootherDisplay
from sklseq.inspection._states import StatePathDisplay
from sklseq.inspection._text import TextProbabilityDisplay
from sklseq.inspection._transitions import TransitionDisplay

__all__ = [
    "ConvergenceDisplay",
    "SmootherDisplay",
    "StatePathDisplay",
    "TextProbabilityDisplay",
    "TransitionDisplay",
]
