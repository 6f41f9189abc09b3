//! Judges a host: which kind it is, what it offers and the command that mends what it lacks.
