"""Pure decisions: the task lifecycle, chunk sizes, retries and progress.

Imports the standard library and msgspec only (ADR 0001); no clock, no sockets, no files, no threads, no global
randomness.
"""
