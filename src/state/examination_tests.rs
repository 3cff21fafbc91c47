//! What is concluded from the answers of a server.
