"""From a commit that is wanted to its stream and image: what is here, what is missing, who fetches it."""
