"""Bytes to values and back: messages, payloads, failures and shared-memory files. No sockets here."""
