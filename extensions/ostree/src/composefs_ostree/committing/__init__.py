"""Making commits: ``commit`` reads trees (of directories, tar archives, images, dumps and other commits) and makes of
them what a pull of the same commit would have left.
"""
