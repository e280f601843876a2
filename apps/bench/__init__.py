"""How fast the parts are beside named rivals: each measured in turns with ours, each claim a ratio of neighbours."""
