//! Layer 6. Who may use which server, and when; the budget.

pub mod core;
