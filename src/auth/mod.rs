//! Layer 2, pure. SCRAM-SHA-256, MD5 and secrets.
