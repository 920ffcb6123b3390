"""Speed beside the authors' code and the peers, as ratios in one run."""
