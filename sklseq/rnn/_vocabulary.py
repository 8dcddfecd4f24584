"""The input door of the text models, and symbols to codes and back.

Texts become one flat array of codes in which every text is preceded by END and the last is followed
by it: text i starts at ``starts[i]`` (its END, which the network reads first) and has
``lengths[i]`` = its symbols + 1 steps; the symbol to predict at position k is the one at k + 1.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache, cached_property, partial
from numbers import Integral, Number

import numpy as np

UNKNOWN, END = 0, 1  # codes; the symbols follow from 2
WORDS = re.compile(r"\w+|[^\w\s]")  # of ASCII; see words_of
JOINERS = "\u200c\u200d"  # inside words of Persian and of the scripts of India

Analyzer = str | Callable[[str], Sequence[str]]


def settled(X: object) -> object:
    """X, or the list of what an iterator gives, which can be looked at but once."""
    return list(X) if hasattr(X, "__next__") else X


def is_text(X: object) -> bool:
    """Whether X is meant as texts or lists of tokens, rather than numbers: its first item tells.

    What cannot be told (nothing, or only missing values) is refused by check_texts, in words.
    """
    if isinstance(X, str | bytes):
        return True
    if hasattr(X, "tocsr") or not (hasattr(X, "__iter__") or hasattr(X, "ndim")):
        return False
    if hasattr(X, "columns"):  # a table: numbers, or texts that check_texts refuses in words
        return any(isinstance(cell, str | bytes) for cell in np.asarray(X.head(5)).flat)
    if getattr(X, "ndim", 1) != 1:
        first = np.asarray(X).reshape(-1)[:1].tolist()
        return bool(first) and isinstance(first[0], str | bytes)
    for item in X:
        if isinstance(item, str | bytes):
            return True
        if isinstance(item, list | tuple | np.ndarray):
            if getattr(item, "ndim", 1) and len(item):
                return isinstance(item[0], str)
        elif isinstance(item, Number) and item == item:
            return False
    return True


def check_texts(X: object) -> list:
    """The texts as a list of str or of lists of str; errors name the text by its index."""
    if hasattr(X, "columns"):
        raise ValueError(
            f"X must be one column of texts, but is a table of shape {X.shape}. Pass the "
            f"column itself, as X[{next(iter(X.columns), 'text')!r}]."
        )
    if getattr(X, "ndim", 1) > 1:
        raise ValueError(
            f"X must have one text, or list of tokens, per sample in one dimension; got shape "
            f"{X.shape}."
        )
    for convert in ("to_list", "tolist"):  # pandas and polars Series; arrays
        if hasattr(X, convert):
            X = getattr(X, convert)()
            break
    if isinstance(X, str | bytes):
        raise ValueError(
            f"X must be a collection of texts, one string per sample; got a single "
            f"{type(X).__name__}. Put it in a list: [text]."
        )
    if not hasattr(X, "__iter__"):
        raise ValueError(f"X must be a collection of texts; got {type(X).__name__}.")
    if isinstance(X, Set | Mapping):
        raise ValueError(f"X must have an order, as a list has; got a {type(X).__name__}.")
    texts = list(X)
    if not texts:
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required: no text.")
    if set(map(type, texts)) == {str}:
        return texts
    return [text if type(text) is str else _checked(i, text) for i, text in enumerate(texts)]


def _checked(i: int, text: object) -> str | list[str]:
    if isinstance(text, str):
        return str(text)
    if isinstance(text, list | tuple | np.ndarray):
        wrong = [token for token in text if not isinstance(token, str)]
        if not wrong:
            return list(text)
        raise ValueError(f"tokens must be strings; text {i} has {wrong[0]!r}.")
    raise ValueError(
        f"X must hold strings, or lists of tokens; text {i} is {text!r} ({type(text).__name__})."
    )


@cache
def _words_with_marks() -> re.Pattern:
    """A word is \\w and the combining marks that follow (vowels in Hindi, accents in NFD)."""
    marks = [chr(c) for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c))[0] == "M"]
    return re.compile(rf"\w[\w{''.join(marks)}{JOINERS}]*|[^\w\s]")


def words_of(text: str) -> list[str]:
    """Words and punctuation marks; joined by spaces they are read as the same words again."""
    return (WORDS if text.isascii() else _words_with_marks()).findall(text)


def check_analyzer(analyzer: Analyzer) -> None:
    is_name = isinstance(analyzer, str) and analyzer in ("char", "word")
    if not is_name and not callable(analyzer):
        raise ValueError(f"analyzer must be 'char', 'word' or a callable; got {analyzer!r}.")


def tokenize(texts: list, analyzer: Analyzer) -> tuple[np.ndarray | list[str], np.ndarray]:
    """All symbols end to end, and how many each text has.

    Characters come as code points (uint32), anything else as a list of str.  A text that is already
    a list of tokens is taken as it is.
    """
    if analyzer == "char" and set(map(type, texts)) == {str}:
        joined = "".join(texts).encode("utf-32-le", "surrogatepass")
        lengths = np.fromiter(map(len, texts), dtype=np.intp, count=len(texts))
        return np.frombuffer(joined, dtype="<u4"), lengths
    split = {"char": list, "word": words_of}.get(analyzer) if isinstance(analyzer, str) else (
        partial(_split_by_callable, analyzer)
    )
    tokens = [split(text) if isinstance(text, str) else text for text in texts]
    lengths = np.fromiter(map(len, tokens), dtype=np.intp, count=len(tokens))
    return [token for text in tokens for token in text], lengths


def has_lists(texts: list) -> bool:
    """Whether any of the texts is a list of tokens."""
    return any(isinstance(text, list) for text in texts)


def check_one_length(X: object) -> None:
    """Refuse lists of numbers that differ in length: no table of sequences, and no texts."""
    if not isinstance(X, list | tuple) or not all(isinstance(item, list | tuple) for item in X):
        return
    odd = next((i for i, item in enumerate(X) if len(item) != len(X[0])), None)
    if odd is not None:
        raise ValueError(
            f"X holds numbers, of which every row needs as many: row 0 has {len(X[0])}, row {odd} "
            f"has {len(X[odd])}. Tokens of a text must be strings; row 0 is {X[0]!r:.80}."
        )


def has_integer_lists(X: object) -> bool:
    """Whether X is lists of Python integers, which may be meant as tokens."""
    if not isinstance(X, list | tuple) or not all(isinstance(item, list | tuple) for item in X):
        return False
    return all(type(token) is int for item in X for token in item)


def _split_by_callable(analyzer: Callable[[str], Sequence[str]], text: str) -> list[str]:
    tokens = analyzer(text)
    tokens = list(tokens) if hasattr(tokens, "__iter__") else [tokens]
    for token in tokens:
        if not isinstance(token, str):
            raise ValueError(
                f"analyzer must make a list of str of a text; of {text!r} it made {token!r}."
            )
    return tokens


def count_symbols(
    tokens: np.ndarray | list[str], n_tokens: np.ndarray, weights: np.ndarray
) -> tuple[list[str], np.ndarray]:
    """Symbols in sorted order, and how often each occurs in texts of these weights."""
    weights = np.repeat(weights, n_tokens)
    if isinstance(tokens, np.ndarray):
        counts = np.bincount(tokens, weights)
        points = np.flatnonzero(counts)
        return list(map(chr, points.tolist())), counts[points]
    symbols = sorted({token for token, weight in zip(tokens, weights) if weight > 0})
    numbers = {symbol: number for number, symbol in enumerate(symbols)}
    where = np.fromiter((numbers.get(token, 0) for token in tokens), np.intp, len(tokens))
    return symbols, np.bincount(where, weights, minlength=len(symbols))


def frequent_symbols(
    symbols: list[str], counts: np.ndarray, min_frequency: float | None, max_symbols: int | None
) -> tuple[str, ...]:
    """Those that occur often enough, and of these the most frequent; of like ones the first."""
    least = 0 if min_frequency is None else min_frequency
    if not isinstance(least, Integral):
        least = least * counts.sum()
    chosen = np.flatnonzero(counts >= least)
    chosen = chosen[np.argsort(-counts[chosen], kind="stable")][:max_symbols]
    return tuple(symbols[i] for i in np.sort(chosen))


def check_vocabulary(vocabulary: object, analyzer: Analyzer) -> tuple[str, ...]:
    """The symbols of a vocabulary that the user gives, sorted."""
    if isinstance(vocabulary, bytes) or not hasattr(vocabulary, "__iter__") or (
        isinstance(vocabulary, str) and analyzer != "char"
    ):
        raise ValueError(
            f"vocabulary must be a collection of symbols, or a mapping from them; got "
            f"{vocabulary!r}."
        )
    symbols = list(vocabulary)
    wrong = [symbol for symbol in symbols if not isinstance(symbol, str)]
    if wrong or not symbols:
        got = f"{wrong[0]!r} among them" if wrong else "none"
        raise ValueError(f"vocabulary must have symbols that are strings; got {got}.")
    if len(set(symbols)) < len(symbols):
        twice = next(symbol for symbol in symbols if symbols.count(symbol) > 1)
        raise ValueError(f"vocabulary must have each symbol once; got {twice!r} twice.")
    return tuple(sorted(symbols))


@dataclass(frozen=True)
class EncodedTexts:
    """codes (sum of lengths + 1,), starts (n,), lengths (n,): see the head of this file."""

    codes: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    def take(self, rows: np.ndarray) -> EncodedTexts:
        """Some of the texts, by their numbers."""
        return EncodedTexts(self.codes, self.starts[rows], self.lengths[rows])


@dataclass(frozen=True)
class Vocabulary:
    """The symbols known to a model, in sorted order; symbol k has code k + 2.

    in_lists : whether texts came as lists of tokens: then draws do so as well.
    learns_unknown : whether all other symbols share a code of their own, the last, which is
        predicted like a symbol; else they have the code UNKNOWN, which is read only.
    """

    symbols: tuple[str, ...]
    in_lists: bool = False
    learns_unknown: bool = False

    def __len__(self) -> int:
        return len(self.symbols) + 2 + self.learns_unknown

    @property
    def unknown(self) -> int:
        """Code of what is no symbol of the vocabulary."""
        return len(self) - 1 if self.learns_unknown else UNKNOWN

    @cached_property
    def codes(self) -> dict[str, int]:
        return {symbol: code for code, symbol in enumerate(self.symbols, 2)}

    @cached_property
    def _table(self) -> np.ndarray:
        """Code of each code point up to the largest known one; the last entry is for all others."""
        points = [ord(symbol) for symbol in self.symbols if len(symbol) == 1]
        table = np.full(max(points, default=0) + 2, self.unknown, dtype=np.int32)
        for symbol, code in self.codes.items():
            if len(symbol) == 1:
                table[ord(symbol)] = code
        return table

    def encode(
        self, tokens: np.ndarray | list[str], n_tokens: np.ndarray, handle_unknown: str = "ignore"
    ) -> EncodedTexts:
        """Codes of tokenized texts; unknown symbols get the code ``unknown``, or raise."""
        if isinstance(tokens, np.ndarray):
            known = self._table[np.minimum(tokens, len(self._table) - 1)]
        else:
            get = self.codes.get
            unknown = self.unknown
            known = np.fromiter((get(token, unknown) for token in tokens), np.int32, len(tokens))
        if handle_unknown == "error" and not known.all():
            unknown = np.flatnonzero(known == UNKNOWN)
            where = int(np.searchsorted(np.cumsum(n_tokens), unknown[0], side="right"))
            symbol = tokens[unknown[0]]
            symbol = symbol if isinstance(symbol, str) else chr(symbol)
            raise ValueError(
                f"text {where} has a symbol that was not seen in fit: {symbol!r} "
                "(handle_unknown='error')."
            )
        lengths = n_tokens + 1
        starts = np.cumsum(lengths) - lengths
        codes = np.full(len(known) + len(n_tokens) + 1, END, dtype=np.int32)
        inside = np.arange(len(known)) + np.repeat(np.arange(1, len(n_tokens) + 1), n_tokens)
        codes[inside] = known
        return EncodedTexts(codes, starts, lengths)

    def decode(self, codes: Sequence[int]) -> list[str]:
        return [self.symbols[code - 2] for code in codes]
