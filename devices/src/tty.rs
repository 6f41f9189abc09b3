//! Consoles of the host: the terminal, a pseudoterminal, a file.
