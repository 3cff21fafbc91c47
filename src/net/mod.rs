//! Layer 3. Sockets, TLS and buffers.
