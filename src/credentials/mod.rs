//! Layer 3. Where secrets come from, and when they are read again.
