"""An index in PostgreSQL with pgvector: where it is, what is in its tables, how it is written and searched."""
