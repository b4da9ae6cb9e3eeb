"""Processes that run tasks: a supervisor, its zygote, and slots. No transport is known here."""
