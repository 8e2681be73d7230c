"""The user's keys: what each may, who gave it, where it lies, and how it is taken back."""
