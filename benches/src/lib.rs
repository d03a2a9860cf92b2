//! Benchmarks with their peers.
