"""The peers' ends of benchmarks.redis: what their workers import. Each reads the server's port from BENCH_PORT."""
