"""Side-by-side measurement of pgweir, PgBouncer and PostgreSQL itself; standard library only. See `benches/compare`."""
