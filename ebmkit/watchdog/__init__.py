"""The watchdog: sees that training diverges, and answers: skip, restart chains, roll back, stop with a diagnosis.

`docs/watchdog.md` has the ladder and the reasons of the thresholds.
"""
