"""The rails that ship: one a file."""
