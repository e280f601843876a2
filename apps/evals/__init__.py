"""How good judges are, measured on labelled texts: `trackbed eval`."""
