"""The embedded broker: a hub process on this machine, spoken to over ZeroMQ. The only place that imports zmq."""
