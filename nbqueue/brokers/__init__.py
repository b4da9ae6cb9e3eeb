"""Where runs wait for workers: one interface, several transports."""
