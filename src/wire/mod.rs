//! Layer 1, pure. The codec of protocol 3.
