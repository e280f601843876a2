"""Known attacks in many disguises, against the input rails of a policy: what is tried, and what got through."""
