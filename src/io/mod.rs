//! Syscalls, threads, clocks and unsafe (skeleton).
