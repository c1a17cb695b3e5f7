"""Tuning `sampler.step_size` by short runs: the reachability rule for the start, Appendix A.1's rule for the rest."""
