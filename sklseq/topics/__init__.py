"""Topic models: sequences whose order does not matter."""

from sklseq.topics._topic_mixture import TopicMixture

__all__ = ["TopicMixture"]
