"""Frame layouts, checksums and sequence arithmetic."""
