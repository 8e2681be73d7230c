"""What `doctor` concludes: facts in `observations`, judged without looking at anything."""
