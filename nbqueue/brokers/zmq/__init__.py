"""The embedded broker: a hub process on this machine. The only place that imports zmq."""
