"""The tables of all feeds, folded into one mesh: who wins, what is taken back, who is who."""
