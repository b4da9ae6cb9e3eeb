"""Redis or Valkey as the broker: every transition is one Lua script."""
