"""Past readings in SQLite or PostgreSQL."""
