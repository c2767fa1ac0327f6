"""The servers that one machine needs to run searches on its own: real ones, on loopback only.

The doors are :func:`cluster.local.servers.up`, ``status`` and ``down``. Nothing is imported here:
the launcher of every server passes through this package.
"""
