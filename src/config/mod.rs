//! Layer 0. The configuration: parsed once from TOML and the environment, into types that need no further check.
