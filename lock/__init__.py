"""``make lock`` and ``make sbom``: everything that is fetched, by hash."""
