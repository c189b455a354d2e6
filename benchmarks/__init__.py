"""This service, the algorithm it replaces and other readers, measured in one run.

    python -m benchmarks                  files on this machine's disk
    python -m benchmarks --storage hdfs   files in a real HDFS that is started for it

Nothing but the checkout is needed: alerts are simulated in the real schemas. `__main__` plans and
resumes, `parts` measures, `methods` are the ways to read a stamp, `report` writes
`docs/benchmarks.md`.
"""
