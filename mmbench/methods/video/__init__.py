"""Methods that make videos."""
