//! Typed requests and outcomes: what a command line (or later a server) asks for, and the wiring of the parts that do it.
