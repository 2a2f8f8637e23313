"""Training: the runs that make or tune models, and the examinations that say how good they are."""
