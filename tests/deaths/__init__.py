"""Deaths: runs whose processes are killed at seeded points, and resumed."""
