"""Studies by people: a blinded page, and what its answers say."""
