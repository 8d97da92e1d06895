"""Everything that is made of a matte: cutouts, composites, panels, their names and their files.

    names      names of files
    jobs       which files are made of which photos
    kinds      the kinds of pictures, one table
    wanted     what is wanted of a photo, and the options of the commands that ask for it
    matte      a photo and its matte: edits, colours of the foreground
    maker      from a matte and what is wanted to pictures and their files
    compose, foreground, shadow, metadata      what the pictures are made of

This room lies below `inference/`, which predicts mattes, and above `images/`. Within it, imports
run `compose, foreground, shadow <- kinds <- names, wanted <- maker <- matte`, and `jobs` uses names
and wanted. The table and the maker call a `Matte` that they are handed, and do not import it.
"""

__all__: list[str] = []  # no API; see `kmatting`
