"""The commands of `trackbed`, a file for each kind; `register` of each adds its commands to the command line."""
