"""The benchmark: Perdure beside its peers, on one machine and database, in one run of `python -m tests.benchmarks`."""
