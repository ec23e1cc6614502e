"""Student, teacher, adapters and amplifiers."""
