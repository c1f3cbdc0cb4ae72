"""The runtime of Perdure: what keeps invocations, runs them and answers for them."""

__version__ = "0.1.0"
