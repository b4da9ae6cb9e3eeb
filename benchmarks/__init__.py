"""nbqueue beside its peers: the same work, one machine, one run.

Never imported by the package or by its tests. See README.md.
"""
