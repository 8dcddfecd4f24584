"""A fitted model of each class as this version pickles it, for the tests of the next.

    python tests/house/pickles.py          # writes tests/house/pickles-<version>.pkl

Once a release.  ``tests/test_pickles.py`` loads every such file.
"""

from __future__ import annotations

import pickle
import sys
import warnings
from pathlib import Path

import numpy as np

import sklseq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from registry import ENTRIES


def models():
    """(class name, fitted model, X, what ``score``, else ``transform``, says of X)."""
    for name in sorted({type(entry.make()).__name__ for entry in ENTRIES}):
        entry = next(one for one in ENTRIES if type(one.make()).__name__ == name)
        X, y = entry.data()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = entry.make().fit(X, *(() if y is None else (y,)))
            says = [
                np.asarray(getattr(model, method)(X[:2])[0]).tolist()
                for method in ("score_samples", "predict_proba", "transform")
                if hasattr(model, method)
            ]
        yield name, model, [np.asarray(one).tolist() for one in X[:2]], says[0]


def main():
    # Python objects around the bytes, which one test may fail to load and another not
    kept = {name: (pickle.dumps(model, 4), X, says) for name, model, X, says in models()}
    path = Path(__file__).parent / f"pickles-{sklseq.__version__}.pkl"
    path.write_bytes(pickle.dumps(kept, 4))
    print(path, path.stat().st_size, {name: len(one[0]) for name, one in kept.items()})


if __name__ == "__main__":
    main()
