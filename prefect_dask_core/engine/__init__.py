"""How a flow runs: plan, fan-out, blocks, pipeline, driver. No I/O, no clock."""
