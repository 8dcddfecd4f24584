"""Linear-Gaussian state spaces."""

from sklseq.state_space._kalman import KalmanSmoother
from sklseq.state_space._softmax import SoftmaxStateSpace

__all__ = ["KalmanSmoother", "SoftmaxStateSpace"]
