"""Side-by-side measurement of pgweir, PgBouncer and PostgreSQL itself. Standard library only; started by `benches/compare`."""
