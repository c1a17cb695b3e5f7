"""`ebmkit report`: a run, or several, as one HTML file that needs no network. Nothing here imports torch.

A run is read (`reading`), its curves thinned (`curves`), recipes compared (`comparing`), costs counted (`cost`) and
pictures chosen (`images`); `page` writes the HTML around them, `writing` the file, and `serving` shows it while a run
trains. What stands in a run folder is never trusted: it is escaped, bounded, and the page forbids scripts but its own.
"""
