"""Small real series that ship with the package, as numbers with their source."""

from sklseq.datasets._base import load_earthquakes, load_nile, load_seizures

__all__ = ["load_earthquakes", "load_nile", "load_seizures"]
