"""Golden results: everything that every estimator says, kept before a change and compared after it.

    python tests/house/golden.py save /tmp/golden.pkl
    python tests/house/golden.py compare /tmp/golden.pkl     # exit 1 and a list if a bit changed

The file belongs to one machine (instruction set, NumPy, BLAS), so it is never committed.
"""

from __future__ import annotations

import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
from scipy import sparse

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from registry import ENTRIES

METHODS = {  # name -> keyword arguments beside X
    "predict": {},
    "predict_proba": {},
    "predict_log_proba": {},
    "bits_per_char": {},
    "perplexity": {},
    "char_log_proba": {},
    "decision_function": {},
    "transform": {},
    "score": {},
    "score_samples": {},
    "score_sequences": {},
    "decode": {},
    "forward_backward": {},
    "filter": {},
    "smooth": {},
    "forecast": {"n_steps": 3},
    "sample_posterior": {"n_draws": 2, "random_state": 0},
    "standard_errors": {},
    "pseudo_residuals": {},
    "innovations": {},
    "aic": {},
    "bic": {},
    "sample": None,  # without X
}


def flatten(name, value, out):
    """Leaves of a result, by dotted name, as arrays (or text where they are no numbers)."""
    if hasattr(value, "_fields"):
        for field, part in zip(value._fields, value):
            flatten(f"{name}.{field}", part, out)
    elif isinstance(value, dict):
        for key, part in value.items():
            flatten(f"{name}[{key!r}]", part, out)
    elif isinstance(value, tuple | list) or (
        isinstance(value, np.ndarray) and value.dtype.kind == "O"
    ):
        for i, part in enumerate(value):
            flatten(f"{name}[{i}]", part, out)
    elif sparse.issparse(value):
        flatten(name, value.toarray(), out)
    elif isinstance(value, np.ndarray | np.generic | int | float | bool):
        out[name] = np.asarray(value)
    else:
        out[name] = repr(value)


def results_of(entry):
    """Fitted attributes and results of all methods, for the collection and for one sequence."""
    results = {}
    for form in ("collection", "flat"):
        if form == "flat" and entry.flat is None:
            continue
        X, y = entry.data() if form == "collection" else (entry.flat(), None)
        model = entry.make()
        target = () if y is None else (y,)
        model.fit(X, *target, **entry.beside)
        for name, value in vars(model).items():
            if name.endswith("_") and not name.startswith("_"):
                flatten(f"{entry.name}/{form}/{name}", value, results)
        for method, arguments in METHODS.items():
            if not hasattr(model, method):
                continue
            function = getattr(model, method)
            try:
                if arguments is None:
                    value = function(random_state=0)
                elif method == "score":
                    value = function(X, *target)
                else:
                    value = function(X, **arguments)
            except Exception as error:  # an error is a result, too: it must stay the same
                value = f"{type(error).__name__}: {error}"
            flatten(f"{entry.name}/{form}/{method}", value, results)
        if hasattr(model, "partial_fit"):
            model.partial_fit(X, *target)
            flatten(f"{entry.name}/{form}/partial_fit", float(model.score(X, *target)), results)
    return results


def compare(before, after):
    """One line for each leaf that is new, gone or of other bits."""
    lines = [f"{name}: gone" for name in before if name not in after]
    lines += [f"{name}: new" for name in after if name not in before]
    for name, old in before.items():
        new = after.get(name, old)
        if type(old) is not type(new) or getattr(old, "shape", None) != getattr(new, "shape", None):
            lines.append(f"{name}: {old!r:.60} became {new!r:.60}")
        elif isinstance(old, str):
            if old != new:
                lines.append(f"{name}: {old!r:.60} became {new!r:.60}")
        elif old.dtype != new.dtype or old.tobytes() != new.tobytes():
            by = ""
            if old.dtype.kind in "fiu" and old.size:
                gap = np.abs(new.astype(float) - old.astype(float))
                by = f" by {np.nanmax(gap) if np.isfinite(gap).any() else np.nan:.3g}"
            lines.append(f"{name}: changed{by}")
    return lines


def main(task, path):
    results = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for entry in ENTRIES:
            results |= results_of(entry)
    if task == "save":
        Path(path).write_bytes(pickle.dumps(results))
        print(f"{len(results)} results of {len(ENTRIES)} entries in {path}")
        return 0
    lines = compare(pickle.loads(Path(path).read_bytes()), results)
    print(*lines or ["every bit is the same"], sep="\n")
    return bool(lines)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("save", "compare"):
        raise SystemExit(__doc__)
    raise SystemExit(main(*sys.argv[1:]))
