"""Linear-Gaussian state spaces."""

from sklseq.state_space._kalman import KalmanSmoother

__all__ = ["KalmanSmoother"]
