"""Measurements of what a flow costs, each beside the same work in raw Dask.

Run them with ``python -m benchmarks``; a machine with nothing else to do gives numbers
worth keeping.
"""
