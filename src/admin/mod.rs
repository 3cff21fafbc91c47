//! Layer 8. The HTTP endpoint: metrics, health and readiness.
