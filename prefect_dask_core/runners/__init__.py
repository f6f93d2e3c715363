"""Where a flow runs: in order, in threads, on a Dask cluster."""
