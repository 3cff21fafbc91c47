//! Layer 0. Metrics and logging set-up. Shards of atomic counters, handed down, never global.
