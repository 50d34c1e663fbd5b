"""What the report says of single candidates: their crystals, pictures, cards and files."""
