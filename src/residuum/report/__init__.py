"""Pictures, tables and pages: renders records, and knows nothing else."""
