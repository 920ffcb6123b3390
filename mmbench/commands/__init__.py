"""What a person types: words in, text out."""
