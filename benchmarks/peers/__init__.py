"""The same mapped flow in other packages, each in an environment of its own.

`prefect_1` and `prefect_3` are scripts: the Python of their environment runs them by
their path. What they need besides is in the file of the same name and ``.txt``.
"""
